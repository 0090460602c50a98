import torch

from harmony_app.nets.flops import FlopCounter, parameters
from harmony_app.nets.haca3 import VARIANTS, Haca3Nets


def cost(nets, run):
    with FlopCounter(nets) as counter, torch.inference_mode():
        run()
    return counter.flops / 1e9


def test_compact_variant_keeps_its_budget_and_paper_variant_its_size():
    images, mask = torch.zeros(1, 1, 224, 224), torch.ones(1, 1, 224, 224)
    anatomy, theta = torch.zeros(1, 5, 224, 224), torch.zeros(1, 2)
    compact = Haca3Nets(VARIANTS['compact'])
    assert cost(compact, lambda: compact.labels(images, mask)) < 1.5
    assert cost(compact, lambda: compact.decode(anatomy, mask, theta)) < 2.5
    paper = Haca3Nets(VARIANTS['paper'])
    assert 2.1e6 < parameters(paper.beta) < 2.2e6
    assert 8.6e6 < parameters(paper.decoder) < 8.9e6
