"""Merging of finished delta tickets of one parent into one ticket, and healing of what came out."""
