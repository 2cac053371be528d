"""The page: what is where, and which control leads to which answer of `demos.demo_answers`.

A control that is moved does two things. It notes the wish at once, past the queue, which makes a running answer to an earlier wish give up;
and it asks for the new answer, of which the browser keeps only the last one waiting.
"""

from typing import TYPE_CHECKING, Any

from demos.demo_answers import EMPTY, Answer, Page
from demos.error_marks import hint
from demos.noisy_clip import CLEAN, MAX_SECONDS

if TYPE_CHECKING:
    import gradio as gr

LOUDEST, START = -10, 0  # dB
NOISE_NAMES = [("Babble", "babble"), ("White noise", "white"), ("Sound file", "file")]
KEPT_SECONDS = 3600  # uploads and sounds are deleted after that
LONGEST_QUEUE = 100
INTRODUCTION = """
<h1>Lips rescue noisy speech</h1>
<p>Drown a voice in noise and watch three transcripts: from the sound, from the lips, and from both.</p>
"""


def build(page: Page, about: str) -> "gr.Blocks":
    """The page itself.

    Args:
        page: answers to the events.
        about: what the models know, as HTML.
    """
    import gradio as gr

    cleaning = (max(1, KEPT_SECONDS // 4), KEPT_SECONDS)
    with gr.Blocks(title="Lips rescue noisy speech", fill_width=True, analytics_enabled=False, delete_cache=cleaning) as blocks:
        gr.HTML(INTRODUCTION, elem_id="introduction", padding=False)
        gr.HTML(f'<div class="notice" role="note">{about}</div>', elem_id="notice", padding=False)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=5, min_width=320):
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
            with gr.Column(scale=7, min_width=320):
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
        gr.HTML("<h2><span>4</span> Follow the words over time</h2>", elem_id="over-time", padding=False)
        timeline = gr.HTML(elem_id="timeline", padding=False)

        controls = [noise, snr, file]
        state = [video, reference, *controls]
        results = [message, sound, transcripts, timeline]
        quick: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden", "trigger_mode": "multiple"}
        # One model, one queue: answers wait for each other instead of competing for the processor.
        slow: dict[str, Any] = {
            "concurrency_id": "model",
            "trigger_mode": "always_last",
            "api_visibility": "private",
            "show_progress": "minimal",
            "show_progress_on": transcripts,
        }

        def shown(answer: Answer) -> tuple[Any, ...]:
            if answer.kept:
                return tuple(gr.skip() for _ in results)
            return answer.message, answer.sound, answer.transcripts, answer.timeline

        def pick(chosen: gr.SelectData, request: gr.Request) -> tuple[str, str]:
            return page.pick(int(chosen.index), request.session_hash or "")

        def pick_first(request: gr.Request) -> tuple[str, str]:
            return page.pick(0, request.session_hash or "")

        def bring(request: gr.Request) -> str:
            page.wishes.note(request.session_hash or "", None)
            return ""  # nobody has typed yet what is said in it

        def note(kind: str, ratio: float, sound_file: str | None, request: gr.Request) -> None:
            page.wishes.note(request.session_hash or "", (kind, ratio, sound_file))

        def show(path: str | None, said: str, kind: str, ratio: float, sound_file: str | None, request: gr.Request) -> tuple[Any, ...]:
            answer, seen = page.show(path, said, (kind, ratio, sound_file), request.session_hash or "")
            return (*shown(answer), seen)

        def remix(path: str | None, said: str, kind: str, ratio: float, sound_file: str | None, request: gr.Request) -> tuple[Any, ...]:
            return shown(page.remix(path, said, (kind, ratio, sound_file), request.session_hash or ""))

        def rescore(path: str | None, said: str, kind: str, ratio: float, sound_file: str | None, request: gr.Request) -> Any:
            return remix(path, said, kind, ratio, sound_file, request)[2]  # the sound, which has not changed, goes on playing

        def leave(request: gr.Request) -> None:
            page.wishes.forget(request.session_hash or "")

        blocks.load(pick_first, None, [video, reference], **quick).then(show, state, [*results, lips], **slow)
        gallery.select(pick, None, [video, reference], **quick).then(show, state, [*results, lips], **slow)
        own = [video.upload, video.stop_recording, video.clear]
        gr.on(own, bring, None, reference, **quick).then(show, state, [*results, lips], **slow)
        gr.on([noise.change, snr.change, file.change], note, controls, None, **quick).then(remix, state, results, **slow)
        reference.change(rescore, state, transcripts, **slow)
        noise.change(lambda kind: gr.update(visible=kind == "file"), noise, file, api_visibility="private", show_progress="hidden")
        blocks.unload(leave)
    blocks.queue(max_size=LONGEST_QUEUE)
    return blocks
