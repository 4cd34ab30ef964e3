"""Clones that many ranks work on, and laws that the charges of a whole run obey."""

from __future__ import annotations

import pytest
import torch

from experiments.methods import METHODS
from pipefusion.core.closed_forms import layer_flops
from pipefusion.core.dit import parameter_parts
from pipefusion.core.mesh import Mesh
from pipefusion.core.parallel import Parallel
from pipefusion.core.silent import SilentFabric
from pipefusion.core.split import split_rows
from pipefusion.core.tensor import shard
from pipefusion.sim.plan import META, Costs
from tests.cases import Case, case_model
from tests.sampling import planned
from tests.sim.test_plan_world import DEVICE, make_case


def test_clones_share_tensors_and_nothing_else():
    template = case_model(make_case("serial")).view()
    parts = dict(parameter_parts(template))
    kept, sharded, untouched = (template.clone() for _ in range(3))
    kept.keep(range(2, 4), embed=False, unembed=False)
    shard(sharded, SilentFabric(Mesh({"tensor": 3}), 1, META))
    assert set(parameter_parts(kept)) == {"block 2", "block 3", "conditioning"}
    assert 0 < parameter_parts(sharded)["block 0"] < parts["block 0"]
    assert sharded.shards and not template.shards and not kept.shards
    for view in (template, untouched):
        assert dict(parameter_parts(view)) == parts
        assert view.layers == range(4) and view.model.transformer_blocks[0].attn1.heads == 12
    names = dict(template.model.named_parameters())
    assert all(parameter is names[name] for name, parameter in untouched.model.named_parameters())


@torch.inference_mode()
def test_a_clone_computes_what_its_template_does():
    model = case_model(make_case("serial"))
    template = model.view()
    clone = template.clone()
    for view in (template, clone):
        view.load(model.tensors(), torch.device("cpu"))
    latent, rows = torch.randn(1, *model.shape.latent_size), range(model.shape.token_rows)
    want = template.embed(latent, rows, None, None).image
    assert torch.equal(clone.embed(latent, rows, None, None).image, want)
    fresh = template.clone()  # of a view that has its data
    assert torch.equal(fresh.embed(latent, rows, None, None).image, want)


@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "serial"])
@pytest.mark.fast_cases(4)
def test_however_attention_is_shared_out_its_flops_stay_the_same(name, devices):
    """Each query attends once a layer and step to all keys that its method declares: ring by parts, tensor by heads."""
    case, method, shape = make_case(name, guidance=4.5), METHODS[name], case_model(make_case(name)).shape
    cfg = method.Config(**case.method)
    bands = split_rows(shape.token_rows, case.method.get("patches", devices))
    unseen = sum(
        len(rows) * (shape.token_rows - len(method.attends(shape, method.parallel(devices), cfg, rows)))
        for rows in bands
    )  # pairs of token rows in a displaced step
    left_out = (case.steps - case.method.get("warmup", case.steps)) * unseen * shape.token_cols**2
    alone = planned(make_case("serial", guidance=4.5), 1)[0].meter
    meters = [rank.meter for rank in planned(case, devices)]
    less = 2 * shape.layers * 4 * shape.hidden * left_out  # two branches
    again = (
        (method.axis == "step") * case.method.get("warmup", 0) * (devices - 1)
    )  # every rank computes these
    want = alone.attention_flops * (case.steps + again) / case.steps - less
    assert sum(meter.attention_flops for meter in meters) == want
    assert sum(meter.matmul_flops for meter in meters) >= alone.matmul_flops  # replicated parts on top


@pytest.mark.parametrize(
    ("family", "key", "layer", "beside"),
    [  # with the modulation of one image a layer, which the closed form leaves out: it does not grow with p
        ("pixart", "num_layers", 0, lambda hs: 0),
        ("sd3_tiny", "num_layers", 0, lambda hs: 2 * 6 * hs * hs),
        ("flux_tiny", "num_layers", 0, lambda hs: 2 * 6 * hs * hs),
        ("flux_tiny", "num_single_layers", 6, lambda hs: 3 * hs * hs),
        ("flux2_tiny", "num_layers", 0, lambda hs: 0),
        ("flux2_tiny", "num_single_layers", 6, lambda hs: 0),
        ("qwen_tiny", "num_layers", 0, lambda hs: 2 * 6 * hs * hs),
        ("qwen_edit_tiny", "num_layers", 0, lambda hs: 2 * 6 * hs * hs),
        ("z_image_tiny", "n_refiner_layers", 0, lambda hs: 4 * hs * hs),
        ("z_image_tiny", "n_layers", 2, lambda hs: 4 * hs * hs),
        ("sana_tiny", "num_layers", 0, lambda hs: 0),
        ("wan_tiny", "num_layers", 0, lambda hs: 0),
        ("cogvideox_tiny", "num_layers", 0, lambda hs: 2 * 32 * 6 * hs),
        ("hunyuan_video_tiny", "num_layers", 0, lambda hs: 2 * 6 * hs * hs),
        ("hunyuan_video_tiny", "num_single_layers", 2, lambda hs: 3 * hs * hs),
        ("hunyuan_video15_tiny", "num_layers", 0, lambda hs: 2 * 6 * hs * hs),
        ("ltx_tiny", "num_layers", 0, lambda hs: 0),
        ("ltx2_tiny", "num_layers", 0, lambda hs: 0),
        ("dit_tiny", "num_layers", 0, lambda hs: 6 * hs * hs + 256 * hs + hs * hs),
    ],
)
@pytest.mark.fast_cases(4)
def test_a_layer_costs_its_closed_form(family, key, layer, beside):
    """The difference that one more layer makes, a step."""
    case = make_case("serial", steps=3, model=family)
    totals = []
    for layers in (2, 3):
        meter = planned(case.but(architecture={key: layers}), 1)[0].meter
        totals.append(meter.matmul_flops + meter.attention_flops)
    shape = case_model(case).shape
    once = 2 * shape.cross * shape.blocks[layer].text_macs * shape.text_tokens
    if key == "n_refiner_layers":  # of which another one refines the prompt
        text = shape.text_tokens + shape.text_filling
        once += 2 * shape.blocks[layer].text_macs * text + 4 * shape.hidden * text**2
    want = 3 * (layer_flops(shape, layer) + 2 * beside(shape.hidden)) + once
    assert totals[1] - totals[0] == pytest.approx(want, rel=1e-12)


FOUR_HEADS = {"num_attention_heads": 4, "attention_head_dim": 12}


def after_others() -> list[tuple[Case, int]]:
    """Every method, and products in which a rank has the same tokens, but other heads behind an exchange."""
    found = [(make_case(name), n) for name in METHODS for n in ((1,) if name == "serial" else (1, 3))]
    four = make_case("pipefusion", guidance=4.5, size=(16, 4), architecture=FOUR_HEADS)
    shares = [(2, 4), (4, 2)]  # patches of the image, Ulysses ranks of a patch
    return found + [
        (four.but(method={"patches": m, "warmup": 1}, parallel=Parallel(ulysses=u)), 4) for m, u in shares
    ]


@pytest.mark.slow
def test_a_memo_filled_by_other_methods_changes_nothing():
    """Copies behind the attention, and what it keeps alive, differ from method to method at the same sizes.

    Were a key of the memo the same for two methods that differ, one would get what the other filled it with.
    """
    costs = Costs()
    for case, devices in after_others():
        alone, after = (planned(case, devices, DEVICE, costs=memo) for memo in (Costs(), costs))
        for one, two in zip(alone, after, strict=True):
            assert (one.meter.bytes, one.meter.peak_bytes) == (two.meter.bytes, two.meter.peak_bytes)
            assert one.total_s == two.total_s


def test_a_hook_on_one_clone_is_not_called_by_the_others():
    template = case_model(make_case("serial")).view()
    one, other = template.clone(), template.clone()
    handle = one.model.adaln_single.register_forward_hook(lambda *_: None)
    hooks = [len(view.model.adaln_single._forward_hooks) for view in (one, other, template)]
    handle.remove()
    assert hooks == [1, 0, 0] and not one.model.adaln_single._forward_hooks
