import torch

from dvae.training import pictures
from dvae.training.pictures import usage_picture


def test_a_heatmap_shows_its_own_usage_alone():
    uniform, narrow = torch.full((3, 4), 0.25), torch.eye(4)[:3]
    first = usage_picture(uniform, uniform)
    second = usage_picture(narrow, narrow)
    assert not torch.equal(first, second)
    pictures._heatmap_figure.cache_clear()
    assert torch.equal(second, usage_picture(narrow, narrow))
    assert torch.equal(first, usage_picture(uniform, uniform))


def test_many_categories_are_shown_as_a_curve():
    used = torch.zeros(65, 100)
    used[:, :50] = 1 / 50
    curve, other = usage_picture(used, used), usage_picture(used, used.roll(1, 0) / 2 + 0.005)
    # Its size depends on no number of latents or categories, unlike that of a heatmap.
    assert curve.shape == other.shape == (3, 280, 480)
    assert not torch.equal(curve, other)
