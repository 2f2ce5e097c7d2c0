"""Errors by who must act.

`OperatorMustAct` is raised where files, addresses or the environment of an installation are not
usable; its message says where, what was wrong, and what was expected. Authors of policy files have
`policy.errors`; what a worker does wrong is a refusal with a reason, not an error.
"""


class OperatorMustAct(Exception):
    """The installation is not usable as it is; nothing was started, or nothing is forwarded."""
