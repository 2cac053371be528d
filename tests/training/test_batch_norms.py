import torch
from torch import nn

from avtlm.training.batch_norms import NormAverages
from avtlm.training.distributed import Processes


def test_norms_of_a_frozen_part_keep_their_statistics_and_use_them() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"frozen": nn.BatchNorm1d(3), "free": nn.BatchNorm1d(3)}).train()
    for norm in model.values():
        norm.running_mean, norm.running_var = torch.full((3,), 2.0), torch.full((3,), 4.0)
    alone = nn.BatchNorm1d(3)
    alone.load_state_dict(model["free"].state_dict())
    averages = NormAverages(model)
    model["frozen"].eval()
    x = torch.randn(8, 3)
    averages.start_step()
    averages.start_batch()
    torch.testing.assert_close(model["frozen"](x), (x - 2.0) / 2.0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model["free"](x), alone(x))
    averages.end_batch()
    averages.finish_step([(0, 0)], Processes(0, 1, torch.device("cpu")))
    assert torch.equal(model["frozen"].running_mean, torch.full((3,), 2.0))
    torch.testing.assert_close(model["free"].running_mean, alone.running_mean)
    torch.testing.assert_close(model["free"].running_var, alone.running_var)
