"""Lottery tickets: subnetworks found in rounds of training and pruning, their controls, comparison and storage."""
