"""What permissions and quotas say to a run that is asked for, before it is written down."""

from executions.actor import Actor
from executions.models import Network
from executions.quotas.admitting import admit, check, check_host_network
from executions.quotas.terms import Terms, terms_of
from executions.sandbox.spec import Limits

__all__ = ["admit", "terms_for"]


def terms_for(
    *, actor: Actor, image: str, network: str, limits: Limits, priority: int = 0
) -> Terms | None:
    """The terms on which it may be; None, usually without a query, where no quota holds.

    Raises HostNetworkForbidden, QuotaForbids, OverCeiling. Counts come with admit().
    """
    if network == Network.HOST:
        check_host_network(actor)
    terms = terms_of(actor.user_id)
    if terms is not None:
        check(terms, image=image, network=network, limits=limits, priority=priority)
    return terms
