"""A ticket (initial weights and a mask), the round that found it, and its score."""

from .carried import carried
from .compact import compact
from .elastic import elastic
from .round import Cost, Round
from .score import Score, evaluate
from .ticket import Ticket, read_ticket

__all__ = ["Cost", "Round", "Score", "Ticket", "carried", "compact", "elastic", "evaluate", "read_ticket"]
