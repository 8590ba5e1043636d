"""Lottery tickets: subnetworks of a parent that can do a domain's work."""
