"""A web page on which lips rescue speech that noise has drowned: what `make demo` runs.

    python -m demos.noisy_speech [--models runs/quickstart/model ...] [--corpus runs/quickstart/corpus] [--host 127.0.0.1] [--port N]

Choose or record a talking face, choose a noise and how loud it is, listen, look at the lips, and read what the model makes of the sound, of
the lips and of both, word by word over time; or what several models make of it, below each other. Everything runs on this machine and
works without internet. What is where on the page is in `demos.demo_page`, what it answers in `demos.demo_answers`, what it shows in
`demos.demo_views`, and what is computed in `demos.noisy_clip` and `demos.demo_reading`.
"""

import argparse
import html
import logging
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from avtlm.errors import MissingExtra
from avtlm.files import DEFAULT_MODEL
from demos.demo_answers import Page
from demos.demo_examples import CORPUS, example_corpus, gather_voices, pick_examples
from demos.demo_page import START, build
from demos.demo_reading import open_readers
from demos.noisy_clip import Studio

if TYPE_CHECKING:
    import gradio as gr

log = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("noisy_speech.css")
LARGEST_UPLOAD = "100mb"
FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
ABOUT_DEFAULT = (
    "<b>This model only knows synthetic speakers and 51 words</b> (sentences such as “place blue at f two now”). It was trained in minutes "
    "by <code>make quickstart</code> to show the method. You may record yourself: your lips are found and your voice is heard, but the "
    "words will be wrong."
)


def about_model(folder: Path) -> str:
    """What visitors must know about the model, as HTML: for any but the default one, the first paragraph of its card."""
    if folder.resolve() == DEFAULT_MODEL.resolve():
        return ABOUT_DEFAULT
    card = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").exists() else ""
    paragraphs = [" ".join(block.split()) for block in card.split("\n\n") if block.strip() and not block.startswith(("#", "-", "    "))]
    words = paragraphs[0] if paragraphs else "It has no card that would say what it knows."
    return f"<b>Model {html.escape(str(folder))}.</b> {html.escape(words)}"


def launch(blocks: "gr.Blocks", host: str, port: int | None, allowed: list[str]) -> str:
    """Serve the page from a thread of its own; returns its address.

    Args:
        host: address to listen at.
        port: None takes the first free one from 7860.
        allowed: folders whose files the page may show.

    Raises:
        OSError: the port is taken.
    """
    import gradio as gr

    theme = gr.themes.Soft(
        primary_hue="teal", secondary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=("ui-monospace", "monospace")
    )
    theme.set(  # quiet labels, and grey text that is dark enough to read
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_title_background_fill="none",
        block_title_text_color="*body_text_color",
        block_title_text_weight="600",
        block_title_padding="0",
        block_label_background_fill="*background_fill_secondary",
        block_label_background_fill_dark="*background_fill_secondary",
        block_label_text_color="*body_text_color",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        block_label_text_weight="600",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
    )
    if port is not None and taken(host, port):
        raise OSError(f"port {port} of {host} is taken; choose another one with --port.")
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        max_file_size=LARGEST_UPLOAD,
        allowed_paths=allowed,
        theme=theme,
        css_paths=STYLE,
        footer_links=[],
        quiet=True,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
    )
    return str(address)


def taken(host: str, port: int) -> bool:
    """Whether another program listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="noisy_speech", description="Serve a web page: your video, noise by a slider, three transcripts.")
    parser.add_argument(
        "--models",
        "--model",
        type=Path,
        nargs="+",
        default=[DEFAULT_MODEL],
        metavar="DIR",
        help=f"model folders, compared below each other (default: {DEFAULT_MODEL})",
    )
    parser.add_argument("--corpus", type=Path, metavar="DIR", help=f"corpus of the example clips (default: {CORPUS}, else a small new one)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 lets others in (default: %(default)s)")
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "absl"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing leaves this machine
    try:
        try:
            import gradio as gr
        except ImportError as error:
            raise MissingExtra("demo", "gradio", "the web page") from error
        log.info("loading %s (gradio %s)", ", ".join(map(str, options.models)), gr.__version__)
        readers = open_readers(options.models)
        manifest = example_corpus(options.corpus)
        examples = pick_examples(manifest)
        with tempfile.TemporaryDirectory(prefix="avtlm-demo-") as folder:
            page = Page(Studio(readers, gather_voices(manifest), Path(folder)), examples)
            page.show(*page.pick(0), ("babble", START, None))  # the face finder starts once, before the first visitor
            blocks = build(page, "<br>".join(about_model(each) for each in options.models))
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the lip videos are removed
            address = launch(blocks, options.host, options.port, [str(manifest.parent.resolve()), folder])
            log.info("open %s in a browser; Ctrl-C here ends it", address)
            blocks.block_thread()
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"noisy_speech: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
