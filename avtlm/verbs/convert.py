"""The verb `avtlm convert`: from official checkpoints and Hugging Face folders, and back to them."""

import argparse
from pathlib import Path

from avtlm.verbs import AddVerb
from avtlm.verbs.printing import wrong


def add_verb(verb: AddVerb) -> None:
    """Add ``convert``."""
    convert = verb(
        "convert",
        _convert,
        "turn an official checkpoint (.pt of fairseq or icefall, or a Hugging Face folder) into a model folder, or back",
        "Neither fairseq, transformers nor any code in the file is run; nothing is written if something does not fit.",
    )
    source = "an official checkpoint (FILE.pt) or a Hugging Face folder, pre-trained or fine-tuned; with --to a model folder"
    convert.add_argument("source", metavar="SOURCE", help=source)
    convert.add_argument("--out", "-o", metavar="DIR", required=True, help="the new model folder; with --to the new .pt file or folder")
    known = ["avhubert", "vatlm", "wav2vec2", "hubert", "wavlm", "data2vec", "mt4ssl", "speecht5", "speech2c", "speechlm", "speechut"]
    known += ["fast_text2unit", "mmspeech", "hifigan", "mt2kd"]
    convert.add_argument("--system", choices=known, help="make sure that it is this system (default: what the file says)")
    back = "write a model folder for the official code, for transformers, or for icefall"
    convert.add_argument("--to", choices=["fairseq", "huggingface", "icefall"], help=back)
    convert.add_argument(
        "--pretrained", metavar="FILE.pt", help="checkpoint that a fine-tuned one came from, if its own configuration lacks the encoder's"
    )
    convert.add_argument("--vocabulary", metavar="FILE", help="SentencePiece model, dict.txt or vocab.txt, if a checkpoint holds none")
    convert.add_argument("--averaged", action="store_true", help="of icefall: the running average of the weights (model_avg)")


def _convert(options: argparse.Namespace) -> int:
    source = Path(options.source)
    reading = options.system or options.pretrained or options.vocabulary or options.averaged
    if options.to is not None and reading:
        said = "--system, --pretrained, --vocabulary and --averaged are for reading a .pt file"
        return wrong(f"--to {options.to} writes a model folder back; {said}.")
    if options.to == "icefall":
        from avtlm.convert.mt2kd import to_icefall

        print(f"checkpoint: {to_icefall(source, options.out)}")
        return 0
    if options.to == "fairseq":
        from avtlm.convert.export import to_fairseq

        print(f"checkpoint: {to_fairseq(source, options.out)}")
        return 0
    if options.to == "huggingface":
        from avtlm.convert.export_huggingface import to_huggingface

        print(f"folder: {to_huggingface(source, options.out)}")
        return 0
    if source.is_dir():
        from avtlm.convert.huggingface import convert_folder, is_hugging_face

        if not is_hugging_face(source):
            return wrong(
                f"{source} has no config.json, so it is no Hugging Face folder; to write a model folder of avtlm for other code, add "
                "--to fairseq or --to huggingface."
            )
        if options.pretrained or options.vocabulary or options.averaged:
            said = "--pretrained, --vocabulary and --averaged are for reading a .pt file"
            return wrong(f"{said}; a Hugging Face folder has its own vocab.json.")
        print(f"model: {convert_folder(source, options.system, options.out)}")
        return 0
    from avtlm.convert.fairseq import convert

    print(f"model: {convert(source, options.system, options.out, options.pretrained, options.vocabulary, options.averaged)}")
    return 0
