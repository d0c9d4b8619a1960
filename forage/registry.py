"""Names to classes. A new part is one file and one line here; your own is `package.module:Class` in the config."""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from forage.errors import ConfigError

if TYPE_CHECKING:
    from forage.config import Config

PARTS: dict[str, dict[str, str]] = {
    "data": {
        "fictional": "forage.datasets.fictional:Fictional",
        "jsonl": "forage.datasets.jsonl:Jsonl",
    },
    "renderer": {
        "tags": "forage.renderers.tags:TagRenderer",
    },
    "search": {
        "bm25": "forage.retrievers.bm25:BM25Retriever",
        "empty": "forage.retrievers.empty:EmptyRetriever",
        "fused": "forage.retrievers.fused:FusedRetriever",
        "http": "forage.retrievers.http:HttpRetriever",
        "indexed": "forage.retrievers.indexed:IndexedRetriever",
        "opensearch": "forage.retrievers.opensearch:OpenSearch",
        "qdrant": "forage.retrievers.qdrant:Qdrant",
        "random": "forage.retrievers.random:RandomRetriever",
        "reranked": "forage.retrievers.rerank:RerankedRetriever",
        "web": "forage.retrievers.web.search:WebSearch",
    },
    "encoder": {
        "transformer": "forage.encoders.transformer:TransformerEncoder",
    },
    "index": {
        "bm25": "forage.indexing.bm25:BM25Builder",
        "dense": "forage.indexing.dense:DenseBuilder",
        "hybrid": "forage.indexing.hybrid:HybridBuilder",
    },
    "loader": {
        "opensearch": "forage.indexing.opensearch:OpenSearchLoader",
        "qdrant": "forage.indexing.qdrant:QdrantLoader",
    },
    "reader": {
        "bm25": "forage.retrievers.bm25:BM25Index",
        "dense": "forage.retrievers.dense:DenseIndex",
        "hybrid": "forage.retrievers.hybrid:HybridIndex",
    },
    "reranker": {
        "cross_encoder": "forage.models.cross_encoder:CrossEncoder",
    },
    "engine": {
        "local": "forage.engines.local:LocalEngine",
    },
    "reward": {
        "cover_em": "forage.rewards.cover_em:CoverMatch",
        "em": "forage.rewards.em:ExactMatch",
        "em_format": "forage.rewards.em_format:FormattedMatch",
        "f1": "forage.rewards.f1:TokenF1",
        "format": "forage.rewards.format:Format",
        "judge": "forage.rewards.judge:Judge",
        "length": "forage.rewards.length:SoftOverlong",
        "no_answer": "forage.rewards.omissions:no_answer",
        "no_search": "forage.rewards.omissions:no_search",
        "repeat": "forage.rewards.repeat:repeat",
        "retrieval": "forage.rewards.retrieval:Retrieval",
        "search_cost": "forage.rewards.search_cost:SearchCost",
        "sum": "forage.rewards.sum:WeightedSum",
    },
    "algorithm.advantage": {
        "dr_grpo": "forage.advantages.dr_grpo:DrGRPO",
        "gae": "forage.advantages.gae:GAE",
        "gae_all_tokens": "forage.advantages.gae_all_tokens:GAEAllTokens",
        "gigpo": "forage.advantages.gigpo:GiGPO",
        "grpo": "forage.advantages.grpo:GRPO",
        "ig_search": "forage.advantages.ig_search:IGSearch",
        "reinforce": "forage.advantages.reinforce:Reinforce",
        "reinforce_pp": "forage.advantages.reinforce_pp:ReinforcePP",
        "reinforce_pp_baseline": "forage.advantages.reinforce_pp_baseline:ReinforcePPBaseline",
        "rejection": "forage.advantages.rejection:Rejection",
        "remax": "forage.advantages.remax:ReMax",
        "rloo": "forage.advantages.rloo:RLOO",
        "tree_grpo": "forage.advantages.tree_grpo:TreeGRPO",
        "turn_credit": "forage.advantages.turn_credit:TurnCredit",
    },
    "algorithm.loss": {
        "cispo": "forage.losses.cispo:CISPOLoss",
        "clip": "forage.losses.clip:ClipLoss",
        "dual_clip": "forage.losses.dual_clip:DualClipLoss",
        "gspo": "forage.losses.gspo:GSPOLoss",
        "llds": "forage.losses.llds:LLDSLoss",
        "nll": "forage.losses.nll:NegativeLogLikelihood",
        "pg": "forage.losses.pg:PolicyGradientLoss",
    },
    "critic": {
        "none": "forage.learners.critic:NoCritic",
        "own": "forage.learners.critic:OwnCritic",
        "shared": "forage.learners.critic:SharedCritic",
    },
    "learner": {
        "local": "forage.learners.local:LocalLearner",
    },
    "tracker": {
        "console": "forage.trackers.console:ConsoleTracker",
        "jsonl": "forage.trackers.jsonl:JsonlTracker",
        "tensorboard": "forage.trackers.tensorboard:TensorBoardTracker",
        "wandb": "forage.trackers.wandb:WandbTracker",
    },
}


def nearest(name: str, known: list[str]) -> str:
    """A half-sentence that names the closest known word, or all of them where none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def find(part: str, kind: str) -> Any:
    """The class (or function) registered as `kind` of `part`, or the user's own `package.module:Name`.

    Raises:
        ConfigError: the name is unknown, or the user's module or attribute can't be found.
    """
    path = PARTS[part].get(kind, kind)
    if ":" not in path:
        raise ConfigError(f"{part}.kind = {kind!r} is unknown; {nearest(kind, list(PARTS[part]))}")
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise ConfigError(f"{part}.kind = {kind!r}: there is no module {module!r} on the Python path") from error
    except AttributeError as error:
        raise ConfigError(f"{part}.kind = {kind!r}: module {module!r} has no {name!r}") from error


def part(config: Config, name: str, *given: Any) -> Any:
    """The part called `name`, built from what it is given and its options."""
    chosen = config.part(name)
    found = find(name, chosen.kind)
    return found(*given, **chosen.options) if inspect.isclass(found) else found
