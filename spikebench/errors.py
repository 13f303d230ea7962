"""The errors that are the user's to mend; the command line prints them as one sentence and ends with status 1."""

from __future__ import annotations


class UserError(Exception):
    """A wrong configuration, a wrong file or a missing input: the message says where, what was found and what to do."""


class Unavailable(Exception):
    """A cell asks for a combination that its method or data set does not offer; it becomes an ``unavailable`` row."""


class Diverged(Exception):
    """Training left the finite numbers; the cell becomes a ``diverged`` row."""
