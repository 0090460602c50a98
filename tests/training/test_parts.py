"""What an adaptation may change, and that nothing else does."""

import numpy as np
import pytest
import torch

from harmony_app.errors import ModelError
from harmony_app.methods.transfer_features import CONDITION
from harmony_app.nets import imunity
from harmony_app.nets.bilateral import TransferConfig, TransferNetwork
from harmony_app.nets.calamiti import VARIANTS, CalamitiNets
from harmony_app.nets.imunity import ImUnityNets
from harmony_app.training.base import LoopSettings
from harmony_app.training.haca3 import Haca3Training
from harmony_app.training.haca3_settings import Settings
from harmony_app.training.loop import Loop
from harmony_app.training.parts import keep_all_but
from harmony_app.training.recipe import TRAINED, get_recipe
from harmony_app.training.slices import SliceSampler


def test_only_the_named_parts_learn(head, tmp_path):
    training = Haca3Training(Settings(size=32, eta_first=0.0, warm=0.0), SliceSampler([head], 32))
    names = set(keep_all_but(training.network, get_recipe('haca3').adapted))
    start = {k: v.clone() for k, v in training.network.state_dict().items()}
    loop = Loop(training, LoopSettings(steps=2, batch=1, average=0.0), tmp_path)
    loop.run()
    changed = {k for k, v in loop.average.state_dict().items() if not torch.equal(v, start[k])}
    assert changed <= names
    for part in get_recipe('haca3').adapted:
        assert any(name.startswith(part) for name in changed), part


def test_parts_are_a_fraction_of_each_network():
    networks = {
        'transfer': TransferNetwork(TransferConfig(condition=CONDITION)),
        'haca3': Haca3Training(Settings(size=32), None).network,
        'calamiti': CalamitiNets(VARIANTS['compact']),
        'imunity': ImUnityNets(imunity.VARIANTS['compact']),
    }
    # a new scanner of MISPEL gets a unit of its own, a new site of DLEST an energy
    assert set(networks) | {'mispel', 'dlest'} == set(TRAINED)
    for method, network in networks.items():
        names = keep_all_but(network, get_recipe(method).adapted)
        sizes = {name: p.numel() for name, p in network.named_parameters()}
        share = sum(sizes[name] for name in names) / np.sum(list(sizes.values()))
        assert 0 < share < 0.2, method


def test_a_network_without_the_part_is_refused():
    with pytest.raises(ModelError, match='no part local'):
        keep_all_but(torch.nn.Linear(1, 1), ['local.'])
