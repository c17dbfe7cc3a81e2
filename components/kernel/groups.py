"""What to tell of errors that come in a group."""

from components.kernel.errors import PipelineError


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a group to tell: one raised on purpose, else one of the system, else the first.

    Tasks that run side by side fail together; whoever reads it needs one reason in one line.
    """
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            leaves.append(error)
    told = (leaf for kind in (PipelineError, OSError) for leaf in leaves if isinstance(leaf, kind))
    return next(told, leaves[0])
