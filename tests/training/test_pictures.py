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
    some, all_of_them = usage_picture(used, used), usage_picture(used + 0.01, used + 0.01)
    assert some.shape == all_of_them.shape
    assert not torch.equal(some, all_of_them)
