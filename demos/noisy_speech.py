"""A web page on which lips rescue speech that noise has drowned: what `make demo` runs.

    python -m demos.noisy_speech [--model runs/quickstart/model] [--corpus runs/quickstart/corpus] [--host 127.0.0.1] [--port N]

Choose or record a talking face, choose a noise and how loud it is, listen, look at the lips, and read what the model makes of the sound, of
the lips and of both. Everything runs on this machine and works without internet. What happens behind the buttons is in `demos.noisy_clip`.
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
from typing import TYPE_CHECKING, Any

from avtlm.errors import MissingExtra
from avtlm.files import DEFAULT_MODEL
from demos.error_marks import cards, hint, notice, problem
from demos.noisy_clip import CLEAN, MAX_SECONDS, Example, Outcome, Studio, gather_voices, pick_examples

if TYPE_CHECKING:
    import gradio as gr

log = logging.getLogger(__name__)

CORPUS = Path("runs/quickstart/corpus")
SPARE_CORPUS = Path("runs/demo/corpus")  # made when there is no other
STYLE = Path(__file__).with_name("noisy_speech.css")
LOUDEST, START = -10, 0  # dB
LARGEST_UPLOAD = "100mb"
NOISE_NAMES = [("Babble", "babble"), ("White noise", "white"), ("Sound file", "file")]
FONTS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
EMPTY = "The transcripts appear here as soon as there is a clip."

INTRODUCTION = """
<h1>Lips rescue noisy speech</h1>
<p>Drown a voice in noise and watch three transcripts: from the sound, from the lips, and from both.</p>
"""
ABOUT_DEFAULT = (
    "<b>This model only knows synthetic speakers and 51 words</b> (sentences such as “place blue at f two now”). It was trained in minutes "
    "by <code>make quickstart</code> to show the method. You may record yourself: your lips are found and your voice is heard, but the "
    "words will be wrong."
)


class Page:
    """The answers to what a visitor does, in the order of the outputs that `build` connects them to.

    Args:
        studio: does the work.
        examples: clips to choose from.
    """

    def __init__(self, studio: Studio, examples: list[Example]) -> None:
        self.studio = studio
        self.examples = examples
        studio.introduce(examples)

    def choose(self, index: int, noise: str, snr: float, file: str | None) -> tuple[Any, ...]:
        """An example: video, reference, message, noisy sound, lips, transcripts."""
        example = self.examples[index]
        return str(example.path), example.transcript, *self.show(str(example.path), example.transcript, noise, snr, file)

    def upload(self, path: str | None, noise: str, snr: float, file: str | None) -> tuple[Any, ...]:
        """A visitor's clip: reference (nobody has typed it yet), message, noisy sound, lips, transcripts."""
        return "", *self.show(path, "", noise, snr, file)

    def show(self, path: str | None, reference: str, noise: str, snr: float, file: str | None) -> tuple[Any, ...]:
        """A clip: message, noisy sound, lips, transcripts."""
        if path is None:
            return "", None, None, hint(EMPTY)
        try:
            lips = str(self.studio.open(path).lips)
        except ValueError as error:  # MediaError and its kin: a sentence for the visitor
            return problem(readable(error)), None, None, hint(EMPTY)
        message, sound, transcripts = self.remix(path, reference, noise, snr, file)
        return message, sound, lips, transcripts

    def remix(self, path: str | None, reference: str, noise: str, snr: float, file: str | None) -> tuple[Any, ...]:
        """The same clip in another noise: message, noisy sound, transcripts."""
        if path is None:
            return "", None, hint(EMPTY)
        message = ""
        if noise == "file" and file is None and snr < CLEAN:
            snr, message = CLEAN, notice("Choose a sound file for the noise; until then the sound is clean.")
        try:
            clip = self.studio.open(path)
            outcome = self.studio.listen(clip, noise, snr, file)
        except ValueError as error:
            return problem(readable(error)), None, hint(EMPTY)
        return message, (16000, outcome.wave), cards(reference, outcome.texts, remark(outcome, clip.warnings, noise, snr))

    def rescore(self, *clip_in_noise: Any) -> str:
        """Only the transcripts of `remix`: the sound, which has not changed, goes on playing."""
        return str(self.remix(*clip_in_noise)[-1])


def remark(outcome: Outcome, warnings: tuple[str, ...], noise: str, snr: float) -> str:
    """What the transcripts are of, how long they took, and what was unusual about the clip; HTML."""
    names = {"babble": "babble", "white": "white noise", "file": "the sound file"}
    condition = "clean sound" if snr >= CLEAN else f"{names[noise]} at {snr:g} dB".replace("-", "−")
    line = f"{len(outcome.wave) / 16000:.1f} s of speech, {condition}; heard and read in {outcome.seconds:.2f} s."
    return line + "".join(f" Note: {html.escape(warning)}." for warning in warnings)


def readable(error: ValueError) -> str:
    """The sentence of an error with the name of the file in place of where the server keeps it."""
    path, reason = getattr(error, "path", None), getattr(error, "reason", None)
    return str(error) if path is None or reason is None else f"{Path(path).name}: {reason}"


def about_model(folder: Path) -> str:
    """What visitors must know about the model, as HTML: for any but the default one, the first paragraph of its card."""
    if folder.resolve() == DEFAULT_MODEL.resolve():
        return ABOUT_DEFAULT
    card = (folder / "README.md").read_text(encoding="utf-8") if (folder / "README.md").exists() else ""
    paragraphs = [" ".join(block.split()) for block in card.split("\n\n") if block.strip() and not block.startswith(("#", "-", "    "))]
    words = paragraphs[0] if paragraphs else "It has no card that would say what it knows."
    return f"<b>Model {html.escape(str(folder))}.</b> {html.escape(words)}"


def build(page: Page, about: str) -> "gr.Blocks":
    """The page itself.

    Args:
        page: answers to the events.
        about: what the model knows, as HTML.
    """
    import gradio as gr

    with gr.Blocks(title="Lips rescue noisy speech", fill_width=True, analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.HTML(INTRODUCTION, elem_id="introduction", padding=False)
        gr.HTML(f'<div class="notice" role="note">{about}</div>', elem_id="notice", padding=False)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=5, min_width=340):
                gr.HTML("<h2><span>1</span> Choose a talking face</h2>", padding=False)
                pictures = [(example.picture, f"Clip {number}") for number, example in enumerate(page.examples, 1)]
                gallery = gr.Gallery(
                    pictures,
                    label="Example clips",
                    show_label=False,
                    columns=4,
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
                video = gr.Video(
                    label=f"Clip: upload or record up to {MAX_SECONDS:.0f} s",
                    sources=["upload", "webcam"],
                    include_audio=True,
                    buttons=[],
                    elem_id="clip",
                )
                reference = gr.Textbox(
                    label="What is said (to count errors)", placeholder="Leave empty if you do not know", max_lines=2, elem_id="reference"
                )
            with gr.Column(scale=7, min_width=340):
                gr.HTML("<h2><span>2</span> Add noise</h2>", padding=False)
                with gr.Group():
                    noise = gr.Radio(NOISE_NAMES, value="babble", label="Noise", elem_id="noise")
                    snr = gr.Slider(
                        LOUDEST,
                        CLEAN,
                        value=START,
                        step=1,
                        label="Speech over noise (dB)",
                        info=f"Left: the noise is {-LOUDEST} dB louder than the speech. At {CLEAN}, the right end: clean, no noise at all.",
                        buttons=[],
                        elem_id="snr",
                    )
                    file = gr.Audio(
                        label="Sound file of the noise",
                        type="filepath",
                        sources=["upload"],
                        visible=False,
                        buttons=[],
                        elem_id="noise-file",
                    )
                gr.HTML("<h2><span>3</span> Hear, see, read</h2>", padding=False)
                message = gr.HTML(elem_id="message", padding=False)
                with gr.Row(elem_id="senses"):
                    sound = gr.Audio(label="What is heard", interactive=False, buttons=[], scale=3, min_width=220, elem_id="sound")
                    lips = gr.Video(
                        label="What is seen", interactive=False, buttons=[], loop=True, height=190, scale=2, min_width=180, elem_id="lips"
                    )
                transcripts = gr.HTML(hint(EMPTY), elem_id="transcripts", padding=False)

        condition = [noise, snr, file]
        results = [message, sound, lips, transcripts]
        # One model, one queue: events wait for each other instead of competing for the processor, and while the slider moves on, the
        # positions that it has passed are skipped.
        often: dict[str, Any] = {
            "concurrency_id": "model",
            "trigger_mode": "always_last",
            "api_visibility": "private",
            "show_progress": "minimal",
            "show_progress_on": transcripts,
        }

        def choose(chosen: gr.SelectData, *state: Any) -> tuple[Any, ...]:
            return page.choose(int(chosen.index), *state)

        everything = [video, reference, *results]
        blocks.load(lambda *state: page.choose(0, *state), condition, everything, **often)
        gallery.select(choose, condition, everything, **often)
        own = [video.upload, video.stop_recording, video.clear]
        gr.on(own, page.upload, [video, *condition], [reference, *results], **often)
        state = [video, reference, *condition]
        gr.on([noise.change, snr.change, file.change], page.remix, state, [message, sound, transcripts], **often)
        reference.change(page.rescore, state, transcripts, **often)
        noise.change(lambda kind: gr.update(visible=kind == "file"), noise, file, api_visibility="private", show_progress="hidden")
    blocks.queue()
    return blocks


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
        block_label_text_color="*body_text_color",
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


def example_corpus(given: Path | None) -> Path:
    """The manifest of the clips to choose from: the one asked for, the quickstart's, or a small one that is made now.

    Raises:
        FileNotFoundError: there is no such manifest.
        MissingExtra: a corpus has to be made and the extra is not installed.
    """
    if given is not None:
        manifest = given / "manifest.jsonl" if given.is_dir() else given
        if not manifest.exists():
            raise FileNotFoundError(f"{given}: there is no manifest.jsonl; name the folder of a corpus of videos with --corpus.")
        return manifest
    if (CORPUS / "manifest.jsonl").exists():
        return CORPUS / "manifest.jsonl"
    if not (SPARE_CORPUS / "manifest.jsonl").exists():
        from preprocess.corpora.talking_heads import generate

        log.info("drawing a few talking heads for the examples, once")
        generate(SPARE_CORPUS, size="smoke")
    return SPARE_CORPUS / "manifest.jsonl"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="noisy_speech", description="Serve a web page: your video, noise by a slider, three transcripts.")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, metavar="DIR", help="model folder (default: %(default)s)")
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
        from avtlm.transcribe import load_recognizer

        log.info("loading the model of %s (gradio %s)", options.model, gr.__version__)
        recognizer = load_recognizer(options.model)
        manifest = example_corpus(options.corpus)
        examples = pick_examples(manifest)
        with tempfile.TemporaryDirectory(prefix="avtlm-demo-") as folder:
            page = Page(Studio(recognizer, gather_voices(manifest), Path(folder)), examples)
            page.choose(0, "babble", START, None)  # the face finder starts once, before the first visitor
            blocks = build(page, about_model(options.model))
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
