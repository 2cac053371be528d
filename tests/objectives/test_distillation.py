import torch

from avtlm.objectives.distillation import joined_frames, of_rows, sound_losses, speaker_distances, speech_distances


def test_successive_frames_of_the_teacher_lie_side_by_side() -> None:
    answers = torch.arange(10.0).reshape(1, 5, 2)
    assert joined_frames(answers, 2, 2).tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    assert joined_frames(answers, 3, 2).tolist()[0][2] == [8, 9, 0, 0]
    assert joined_frames(answers, 3, 1).tolist() == [[[0, 1], [2, 3], [4, 5]]]


def test_distances_of_speech_leave_padding_out_and_may_come_late() -> None:
    predicted = torch.tensor([[[0.0, 0.0], [1.0, 3.0], [9.0, 9.0]]])
    answers = torch.zeros(1, 3, 2)
    assert speech_distances(predicted, answers, torch.tensor([2])).tolist() == [[0.0, 2.0, 0.0]]
    # Frame 0 of the teacher is compared with frame 1 of the student.
    assert speech_distances(predicted, answers, torch.tensor([3]), delay=1).tolist() == [[2.0, 9.0]]


def test_probabilities_of_the_teacher_are_met_where_the_loss_is_least() -> None:
    probabilities = torch.tensor([[0.2, 0.9]])
    least = sound_losses(probabilities.logit(), probabilities)
    assert bool((sound_losses(probabilities.logit() + 0.1, probabilities) > least).all())


def test_the_length_of_a_vector_of_a_voice_means_nothing() -> None:
    first = torch.tensor([[1.0, 2.0], [1.0, 0.0]])
    found = speaker_distances(3 * first, torch.tensor([[2.0, 4.0], [-1.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([0.0, 2.0]), atol=1e-6, rtol=0)


def test_rows_without_an_answer_do_not_count() -> None:
    each = torch.tensor([[1.0, 2.0], [float("nan"), 4.0], [5.0, 6.0]])
    loss = of_rows(each, torch.tensor([True, False, True]), 10.0, "d", torch.tensor([2, 7, 3]))
    assert loss.value == 140.0
    assert loss.count == 2
    assert [int(part) for part in loss.logs["d"]] == [14, 5]
