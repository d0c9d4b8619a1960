"""Every setting of a run: its name, type, default and, in the line under it, its help.

A run is one TOML file of these tables, with `key=value` over it (`forage.configure` reads both). A table with `kind`
is a swappable part: `kind` names a class, and the other keys are that class's own options, declared there. What
stands here beside `kind` is shared by every kind. Relative paths are relative to the current directory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(slots=True)
class Part:
    """A swappable part: a kind, and the options of that kind."""

    kind: str
    """name of the part, or `package.module:Class` of your own"""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """Where a run lives and what it runs on."""

    dir: str = ""
    """folder of the run; empty: runs/<name of the recipe or file>"""
    seed: Count = 0
    """seed of sampling, shuffling and initialisation (the world has its own: data.seed)"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the model computes; auto: the GPU where there is one"""
    threads: Count = 0
    """CPU threads of torch; 0 leaves torch's choice"""


@dataclass(slots=True)
class Data(Part):
    """Questions, and the passages that answer them."""

    kind: str = "fictional"
    """fictional (a world made from a seed), jsonl (your own files), or package.module:Class"""


@dataclass(slots=True)
class Model:
    """The policy."""

    path: str = "Qwen/Qwen2.5-3B"
    """folder or hub name of a Hugging Face causal language model"""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """what the learner computes in; master weights and optimizer state are float32 always"""
    gradient_checkpointing: bool = True
    """compute activations twice, to hold fewer of them"""
    init_from: str = ""
    """run or checkpoint folder whose weights the run starts with; empty: those at model.path"""


@dataclass(slots=True)
class Renderer(Part):
    """How questions, searches, passages and answers are written in tokens."""

    kind: str = "tags"
    """tags (<think> <search> <information> <answer>), or package.module:Class"""


@dataclass(slots=True)
class Search(Part):
    """The search engine that the policy asks."""

    kind: str = "bm25"
    """bm25, indexed, http, web, opensearch, qdrant, fused and reranked (over others), empty, random
    (docs/retrieval.md), or package.module:Class"""
    k: Positive = 3
    """passages a query"""
    cache_size: Count = 100_000
    """queries whose results are remembered; 0: none"""
    timeout_s: Annotated[float, Meta(gt=0)] = 60.0
    """seconds until a search counts as failed"""
    max_failure_rate: Share = 0.05
    """share of a step's searches that may fail before the run stops"""


@dataclass(slots=True)
class Rollout:
    """One step's episodes and their limits."""

    questions: Positive = 64
    """questions a step"""
    samples: Positive = 8
    """episodes a question; they form a group"""
    trees: Count = 0
    """episodes of a group that begin at its question; others branch off from them between turns; 0: all begin there"""
    staleness: Count = 0
    """optimizer updates between playing a group and learning from it, as in asynchronous training; 0: none"""
    max_searches: Count = 4
    """searches an episode may run; then it gets one more turn to answer"""
    max_turn_tokens: Positive = 512
    """tokens the policy may write in one turn"""
    max_observation_tokens: Positive = 512
    """tokens of passages shown after one search"""
    max_tokens: Positive = 4096
    """tokens of a whole episode, prompt included"""
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    """of sampling in training; evaluation is greedy"""


@dataclass(slots=True)
class Engine(Part):
    """What decodes."""

    kind: str = "local"
    """local (in this process), or package.module:Class"""


@dataclass(slots=True)
class Reward(Part):
    """What an episode is worth."""

    kind: str = "em"
    """em (exact match), f1, cover_em, em_format, judge, sum (of several: docs/algorithms.md), or package.module:Name"""


@dataclass(slots=True)
class Advantage(Part):
    """Rewards to advantages."""

    kind: str = "grpo"
    """grpo, dr_grpo, rloo, reinforce, reinforce_pp, reinforce_pp_baseline, remax, gae, gae_all_tokens, gigpo,
    turn_credit, tree_grpo, ig_search, rejection (docs/algorithms.md), or package.module:Class"""


@dataclass(slots=True)
class Loss(Part):
    """Advantages to the loss of each token."""

    kind: str = "clip"
    """clip (the clipped policy ratio), or package.module:Class"""


@dataclass(slots=True)
class Critic(Part):
    """Who says what a state is worth, for estimators that read values (gae)."""

    kind: str = "none"
    """none, own (a value model of its own), shared (a value head on the policy), or package.module:Class"""
    lr: Annotated[float, Meta(gt=0)] = 1e-5
    """learning rate, constant"""
    warmup_steps: Count = 0
    """updates in which the critic learns alone; learner.schedule begins behind them"""
    value_clip: Amount = 0.5
    """how far a value may move in an update before it is pushed no further; 0: as far as it is pushed"""
    max_grad_norm: Annotated[float, Meta(gt=0)] = 1.0
    """its gradients are scaled down to this norm"""


@dataclass(slots=True)
class Algorithm:
    """What is learned from a step's episodes."""

    equal_groups: Literal["drop", "keep", "refill"] = "drop"
    """groups of equal rewards: drop (not computed where they teach nothing), keep, or refill (others are played)"""
    max_refills: Count = 3
    """rounds of other questions a step may play, where groups are refilled"""
    leave_out: list[Literal["context_full", "no_answer"]] = field(default_factory=list)
    """episodes that ended so are rewarded, but not learned from"""
    train_on_everything: bool = False
    """learn what was shown too (passages, retry texts), as if it had been sampled: to measure what the mask is worth"""
    advantage: Advantage = field(default_factory=Advantage)
    loss: Loss = field(default_factory=Loss)


@dataclass(slots=True)
class Learner(Part):
    """What updates the weights."""

    kind: str = "local"
    """local (one device, in this process), or package.module:Class"""


@dataclass(slots=True)
class Train:
    """How long to train, and what to keep."""

    steps: Count = 500
    """steps; in each, rollout.questions questions are sampled and learned from"""
    eval_every: Count = 50
    """steps between evaluations; 0: none during training"""
    save_every: Count = 50
    """steps between checkpoints; 0: only the final one"""
    keep: Positive = 2
    """checkpoints kept: the last ones; the best one is kept besides"""
    save_trajectories_every: Count = 10
    """steps between saved trajectories; 0: none"""


@dataclass(slots=True)
class Eval:
    """Evaluation, which is greedy and covers every question."""

    questions: Count = 0
    """at most this many questions; 0: all"""


@dataclass(slots=True)
class Diagnosis:
    """When a run is said to collapse, and what is done then (docs/training.md)."""

    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    """warn: say so and go on; stop: save and end; rollback: go on from before it, with the settings in `retry`"""
    retry: list[str] = field(default_factory=list)
    """settings (key=value) of a run that was rolled back"""
    max_rollbacks: Count = 1
    """how often a run is rolled back; then it stops"""
    window: Annotated[int, Meta(ge=2)] = 8
    """steps that each figure is averaged over before it is judged"""
    reward_drop: Share = 0.3
    """share of its best mean that the reward must have lost"""
    rise: Annotated[float, Meta(gt=1)] = 3.0
    """times by which KL or gradient norm must have grown meanwhile"""
    logprob_drop: Amount = 0.5
    """nats a token that right answers must have lost in likelihood"""
    searches_left: Share = 0.1
    """share of the searches made before, below which searching counts as given up"""
    thoughts_left: Share = 0.2
    """share of the thoughts written before, below which thinking counts as given up"""
    longer: Annotated[float, Meta(gt=1)] = 2.0
    """times by which episodes must have grown longer without more reward"""
    unanswered: Share = 0.5
    """share of episodes cut off without an answer, where it was below half of that before"""
    signal: Share = 0.05
    """share of groups with signal, below which there is nothing to learn from"""
    entropy_low: Amount = 0.02
    """nats a token, below which an entropy counts as gone where the reward is not high"""
    entropy_rise: Amount = 1.0
    """nats a token that the entropy must have risen above its lowest"""
    clip_fraction: Share = 0.3
    """share of clipped tokens that is too much"""
    ratio_max: Annotated[float, Meta(gt=1)] = 20.0
    """largest ratio of a step that is too much"""
    mismatch: Amount = 0.1
    """difference between the logprobs of engine and learner, in nats a token, that is too much"""
    skipped_steps: Share = 0.2
    """share of optimizer steps thrown away that is too much"""
    unexplained: float = -0.1
    """explained variance of the critic below which its values are worse than none"""


@dataclass(slots=True)
class Tracking:
    """Where metrics go besides metrics.jsonl."""

    console: bool = True
    """a live view on standard error; off: nothing"""
    tensorboard: bool = False
    """write TensorBoard events into the run's folder (extra: tensorboard)"""
    wandb: bool = False
    """log to Weights & Biases (extra: wandb)"""
    wandb_project: str = "forage"
    """project there"""


@dataclass(slots=True)
class Fresh:
    """A small model that is made anew, in place of model.path."""

    tokenizer: Literal["", "syllables", "trained"] = ""
    """empty: none, take model.path; syllables: that of the fictional world; trained: a byte-level BPE of the corpus"""
    vocabulary: Positive = 2048
    """entries of a trained tokenizer"""
    hidden: Positive = 128
    """width"""
    layers: Positive = 4
    """depth"""
    heads: Positive = 4
    """attention heads; half as many for keys and values"""


@dataclass(slots=True)
class Sft:
    """The warm start; used by `forage sft` only, which learns with [learner]."""

    data: str = ""
    """jsonl of trajectories to learn from; empty: scripted episodes, as `phases` says"""
    steps: Count = 1000
    """optimizer steps"""
    episodes: Positive = 32
    """episodes a step"""
    passages: list[Positive] = field(default_factory=list)
    """passages a search, drawn anew for each scripted episode from these numbers; empty: search.k"""
    phases: list[dict[str, Amount]] = field(default_factory=list)
    """what scripted episodes show, one phase after another: `share` of the steps, and a weight for each behaviour"""
    fresh: Fresh = field(default_factory=Fresh)


@dataclass(slots=True)
class Config:
    """A whole run, checked. `notes` says what was changed on the way, for a person to read."""

    run: Run = field(default_factory=Run)
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    renderer: Renderer = field(default_factory=Renderer)
    search: Search = field(default_factory=Search)
    rollout: Rollout = field(default_factory=Rollout)
    engine: Engine = field(default_factory=Engine)
    reward: Reward = field(default_factory=Reward)
    algorithm: Algorithm = field(default_factory=Algorithm)
    critic: Critic = field(default_factory=Critic)
    learner: Learner = field(default_factory=Learner)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    tracking: Tracking = field(default_factory=Tracking)
    sft: Sft = field(default_factory=Sft)
    notes: list[str] = field(default_factory=list, compare=False)

    def table(self, name: str) -> Any:
        """The table of a dotted name, such as `run` or `algorithm.loss`."""
        table: Any = self
        for word in name.split("."):
            table = getattr(table, word)
        return table

    def part(self, name: str) -> Part:
        """The part of a dotted name, such as `search` or `algorithm.loss`."""
        part = self.table(name)
        if not isinstance(part, Part):
            raise TypeError(f"{name} is no part")
        return part
