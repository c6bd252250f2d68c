"""Some of the changed images of a mirror, carried for the run that has compared all of them."""

from __future__ import annotations

from typing import cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.carry import carry_all
from flows.parameters.forms import flat
from flows.parameters.mirror import MirrorShardParameters
from oci.mirror.comparison import Comparison
from oci.mirror.digest_cache import DigestCache, default_path
from oci.mirror.execute import ItemOutcome, unaccounted
from oci.mirror.run import Shared
from oci.mirror.work import Breaker
from oci.relocation.transfer import DONE
from tasks.artifacts.report import artifact_key
from tasks.fleet.heartbeat import heartbeats
from tasks.fleet.limits import limits_of
from tasks.mirror import MirrorRun, MirrorsRun
from tasks.mirror_fleet import MirrorAccount
from tasks.run import running


@flow(name="mirror-shard", persist_result=False)
@flat
async def mirror_shard(parameters: MirrorShardParameters) -> None:
    """Brings images to the destinations that lack them, and gives them their tags there.

    What became of each is told by an artifact of the kind `account`, while the run goes on and when it has ended. The
    run fails when an image did.
    """
    work, [one] = parameters.work(), parameters.config.mirrors
    shared = Shared(facts=DigestCache(default_path()), breaker=Breaker())
    whole = MirrorsRun(parameters.config, [one], shared)
    async with running(whole), running(MirrorRun(whole, one)) as run:
        run.comparison = Comparison(mirror=one.name, source=str(one.source.store), destinations=(), work=work)
        async with heartbeats(artifact_key("mirror-shard", one.name), lambda: MirrorAccount.of(run)):
            await run.limit(limits_of(*(store for item in work for store in item.store_names)))
            await carry_all(run, work)
    return cast(None, _failed(list(run.outcomes.values()), len(unaccounted(work, run.outcomes.values()))))


def _failed(outcomes: list[ItemOutcome], unaccounted: int) -> State[None] | None:
    """The state of a run in which images failed, or have no outcome. Returned, as an error that is raised fills the
    log."""
    failed = [one for one in outcomes if one.status != DONE]
    if unaccounted:
        return Failed(message=f"{unaccounted} planned destinations of images have no outcome")
    if not failed:
        return None
    return Failed(message=f"{len(failed)} of {len(outcomes)} images failed, the first: {failed[0].error}")
