import asyncio

from tiny_policies import tiny_policy

from forage.learners.local import LocalLearner
from forage.losses.nll import NegativeLogLikelihood
from forage.weights.shared import SharedWeights


class Receiver:
    version = -1

    def load_weights(self, weights, version):
        self.names = {name for name, _ in weights}
        self.version = version


def test_the_engine_gets_every_weight_and_the_version():
    policy = tiny_policy("Llama")
    engine = Receiver()
    asyncio.run(SharedWeights(LocalLearner(policy, NegativeLogLikelihood()), engine).push(7))
    assert engine.version == 7
    assert engine.names == {name for name, _ in policy.model.named_parameters()}
