"""Workers: processes that share independent work, on the cards of this machine, by Ray or by Slurm.

Whoever starts the workers only starts them. They pull their work themselves: a piece is claimed by a lock in a folder
that all of them see, and the lock ends with its process, however it ends. So a worker that dies gives its piece back.
"""

from minigpt.workers.crew import Crew, together
from minigpt.workers.request import Workers, parse_workers

__all__ = ["Crew", "Workers", "parse_workers", "together"]
