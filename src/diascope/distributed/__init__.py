"""Several processes on one run: who they are (launch), and the few sums that they need of one another (team)."""

from diascope.distributed.launch import joined, processes
from diascope.distributed.team import ALONE, Axis, Team

__all__ = ["ALONE", "Axis", "Team", "joined", "processes"]
