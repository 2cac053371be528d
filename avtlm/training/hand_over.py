"""What a recogniser takes of another one besides its encoder, whose weights `initial.load_except` copies: its attention decoder.

It serves to compare stages that hand over an encoder alone with such that keep the decoder (docs/multistage.md).
"""

from pathlib import Path

from torch import nn

from avtlm import checkpoint
from avtlm.recognizer import Recognizer
from avtlm.text.vocabulary import load_vocabulary

# Parts of a decoder that belong to one vocabulary.
OF_VOCABULARY = ("embedding.", "output.")


def take_decoder(recognizer: Recognizer, folder: str | Path) -> None:
    """Copy the decoder of a recogniser's folder, in place; embeddings only where both write the same symbols.

    Raises:
        ValueError: there is none in the folder or in the recogniser, or they are of different sizes.
    """
    given = {
        name.removeprefix("decoder."): tensor for name, tensor in checkpoint.load_weights(folder).items() if name.startswith("decoder.")
    }
    if not given or checkpoint.load_config(folder).get("task") != "recognition":
        raise ValueError(f"keep_decoder: {folder} holds no recogniser with an attention decoder; set false, or name another initial model.")
    decoder: nn.Module | None = recognizer.decoder
    if decoder is None:
        raise ValueError("keep_decoder: true, but model.decoder is null; describe one of the initial decoder's sizes, or set false.")
    own = decoder.state_dict()
    if load_vocabulary(folder).symbols != recognizer.vocabulary.symbols:
        given = {name: tensor for name, tensor in given.items() if not name.startswith(OF_VOCABULARY)} | {
            name: tensor for name, tensor in own.items() if name.startswith(OF_VOCABULARY)
        }
    wrong = sorted(set(own) ^ set(given)) + [name for name in own if name in given and own[name].shape != given[name].shape]
    if wrong:
        raise ValueError(
            f"keep_decoder: {len(wrong)} tensors of the decoder in {folder} do not fit model.decoder ({', '.join(wrong[:4])}); give both "
            "the same sizes."
        )
    decoder.load_state_dict(given)
