"""The peak of a device is its datasheet's where there is one, and else measured."""

import pytest
import torch

from avtlm.training import peak
from avtlm.training.peak import DATASHEETS, datasheet, matrix_rate, peak_rate, rate_of


@pytest.mark.parametrize(
    ("name", "sheet"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("h100", "H100"),
        ("a100-40gb", "A100 40GB"),
    ],
)
def test_a_gpu_is_known_by_the_names_that_drivers_and_users_give_it(name: str, sheet: str) -> None:
    found = datasheet(name)
    assert found is not None
    assert found.name == sheet


@pytest.mark.parametrize("name", ["NVIDIA A10G", "NVIDIA A1000", "NVIDIA GeForce RTX 3060", "cpu", ""])
def test_a_gpu_that_is_not_in_the_table_is_not_taken_for_another(name: str) -> None:
    assert datasheet(name) is None


def test_every_gpu_of_the_table_is_found_by_its_own_name() -> None:
    assert [datasheet(sheet.name) for sheet in DATASHEETS] == list(DATASHEETS)


def test_the_rate_is_that_of_the_precision_and_dense() -> None:
    h100, v100 = datasheet("h100"), datasheet("v100")
    assert h100 is not None
    assert v100 is not None
    assert rate_of(h100, "bf16") == 989.5e12  # 1,979 with sparsity
    assert rate_of(h100, "fp32") == 67e12
    assert rate_of(h100, "fp32", tf32=True) == 494.7e12
    assert rate_of(v100, "bf16") is None
    assert rate_of(v100, "fp32", tf32=True) == 15.7e12


def test_a_gpu_takes_its_datasheet_and_one_without_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_measured", lambda device, precision, threads: 7.0)
    names = iter(["NVIDIA H100 80GB HBM3", "NVIDIA Whatever", "Tesla T4"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: next(names))
    found = [peak_rate(torch.device("cuda:0"), "bf16") for _ in range(3)]
    assert [(each.flops, each.source) for each in found] == [(989.5e12, "datasheet of H100"), (7.0, "measured"), (7.0, "measured")]


def test_the_rate_of_a_cpu_is_measured_once_and_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    first = peak_rate(torch.device("cpu"), "fp32")
    assert torch.equal(torch.get_rng_state(), before)
    assert first.source == "measured"
    assert 1e8 < first.flops < 1e15
    assert peak_rate(torch.device("cpu"), "fp32") == first


def test_the_rate_is_operations_over_the_shortest_time() -> None:
    ticks = iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0])
    assert matrix_rate("fp32", "cpu", 100, products=3, clock=lambda: next(ticks)) == 2 * 100**3 / 2.0
