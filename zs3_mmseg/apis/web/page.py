"""The page itself: controls of Gradio around a :class:`Workbench`."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

# Read while Gradio is imported.
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zs3_mmseg.utils.image_io import IMAGE_SUFFIXES

from .scored import ScoredPicture, Span, archive
from .views import message_view, picture_view, result_view
from .workbench import Picture, Workbench, read_words

_ASSETS = Path(__file__).parents[2] / 'assets' / 'web'
#: Sessions whose pictures and scores are kept, and for how long, in seconds.
SESSIONS, SESSION_SECONDS = 8, 3600
Kept = TypeVar('Kept', Picture, ScoredPicture)
# What goes wrong with a picture or with words; torch reports memory that is used up
# as a RuntimeError.
_FAULTS = (OSError, ValueError, RuntimeError, MemoryError)

# Whatever a component of Gradio may ask for in times to come: nothing from elsewhere.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'"
)


class _OwnOriginOnly:
    """Tells browsers to load nothing from other machines."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message['type'] == 'http.response.start':
                policy = (b'content-security-policy', _POLICY.encode())
                message['headers'] = [*message.get('headers', ()), policy]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server at an address."""
    try:
        return host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _slider(span: Span) -> dict[str, Any]:
    """Return how a slider is set for a span; without a choice it cannot be moved."""
    if span.low == span.high:
        return dict(minimum=0, maximum=1, step=1, value=0, interactive=False)
    return dict(
        minimum=span.low,
        maximum=span.high,
        step=span.step,
        value=span.start,
        interactive=True,
    )


def _theme() -> gr.themes.Base:
    """Return a theme with fonts of the system, and grey text that can be read."""
    theme = gr.themes.Default(
        primary_hue='teal',
        font=['system-ui', 'sans-serif'],
        font_mono=['ui-monospace', 'monospace'],
    )
    return theme.set(
        body_text_color_subdued='*neutral_600',
        body_text_color_subdued_dark='*neutral_300',
        block_info_text_color='*neutral_600',
        block_info_text_color_dark='*neutral_300',
        button_primary_background_fill='*primary_700',
        button_primary_background_fill_hover='*primary_800',
        button_primary_background_fill_dark='*primary_700',
        button_primary_background_fill_hover_dark='*primary_800',
    )


def build_page(workbench: Workbench) -> gr.Blocks:
    """Build the page, whose work ``workbench`` does."""
    samples = workbench.samples()
    first_sample, first_model = next(iter(samples)), workbench.models[0]
    page = gr.Blocks(
        title='zs3_mmseg',
        analytics_enabled=False,
        delete_cache=(SESSION_SECONDS, SESSION_SECONDS),
    )
    with page:
        picture_kept = gr.State(time_to_live=SESSION_SECONDS)
        scored_kept = gr.State(time_to_live=SESSION_SECONDS)
        gr.HTML(
            '<header class="zs3-head"><h1>Your picture, your words</h1>'
            '<p>Zero-shot segmentation: every pixel gets one of the names below, '
            'whether a model was trained on them or not.</p></header>'
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                sample = gr.Radio(
                    [*samples], value=first_sample, label='Sample picture'
                )
                upload = gr.UploadButton(
                    'Upload a picture', file_types=sorted(IMAGE_SUFFIXES)
                )
                preview = gr.HTML()
                words = gr.Textbox(
                    ', '.join(workbench.words(first_model)),
                    label='Names',
                    info='Between commas or on lines; synonyms joined by |. '
                    "Shift+Enter segments. Empty: the model's own.",
                    lines=4,
                    max_lines=12,
                )
                model = gr.Dropdown(
                    [*workbench.models], value=first_model, label='Model'
                )
                segment = gr.Button('Segment', variant='primary')
                message = gr.HTML()
            with gr.Column(scale=3, min_width=300):
                result = gr.HTML(
                    js_on_load=(_ASSETS / 'hover.js').read_text(encoding='utf-8')
                )
                with gr.Row(equal_height=False):
                    with gr.Column(min_width=260):
                        gamma = gr.Slider(
                            0,
                            1,
                            label='Calibration',
                            info='What the scores of seen names lose; below 0 they '
                            'gain.',
                            interactive=False,
                        )
                        threshold = gr.Slider(
                            0,
                            1,
                            label='Threshold',
                            info='Pixels whose best score is lower get no name.',
                            interactive=False,
                        )
                        download = gr.DownloadButton(
                            'Download labels and overlay', interactive=False
                        )
                    with gr.Column(min_width=260):
                        word = gr.Dropdown([], label='Heat map of a name')
                        heat = gr.HTML()

        Shown = dict[Any, Any]

        def relabelled(
            scored: ScoredPicture, shift: float, least: float | None
        ) -> Shown:
            found = scored.relabelled(shift, least)
            settings = dict(model=scored.model, gamma=shift, threshold=least)
            file = save_bytes_to_cache(
                archive(found, settings),
                f'{Path(found.source or "picture").stem}_segmented.zip',
                cache_dir=download.GRADIO_CACHE,
            )
            return {
                result: result_view(found),
                download: gr.DownloadButton(value=file, interactive=True),
            }

        def heat_of(scored: ScoredPicture, name: str) -> str:
            position = scored.result.names.index(name)
            return picture_view(scored.heat_map(position), f'Heat map of {name}')

        def segmented(picture: Picture, text: str, label: str, name: str) -> Shown:
            scored = workbench.segment(picture, read_words(text), label)
            names, shares = scored.result.names, scored.result.shares
            chosen = name if name in names else names[int(shares.argmax())]
            height, width = scored.result.labels.shape
            notes = [f'{width} x {height} pixels, {len(names)} names']
            return {
                scored_kept: scored,
                message: message_view('; '.join([*notes, *scored.result.notes])),
                gamma: gr.Slider(**_slider(scored.gamma_span)),
                threshold: gr.Slider(**_slider(scored.threshold_span)),
                word: gr.Dropdown(choices=[*names], value=chosen),
                heat: heat_of(scored, chosen),
                **relabelled(scored, 0.0, None),
            }

        def shown(picture: Picture) -> Shown:
            return {
                picture_kept: picture,
                preview: picture_view(picture.pixels, f'Picture {picture.name}'),
            }

        def told(work: Callable[..., Shown]) -> Callable[..., Shown]:
            """Let faults of a picture or of words end in one line on the page."""

            def call(*given: Any) -> Shown:
                try:
                    return work(*given)
                except _FAULTS as error:
                    text = ' '.join(str(error).split()) or type(error).__name__
                    return {message: message_view(text, fault=True)}

            return call

        def taken(picture: Picture, *given: Any) -> Shown:
            """Show a new picture in any case; without a result, show no old one."""
            none = {
                scored_kept: None,
                result: '',
                heat: '',
                gamma: gr.Slider(interactive=False),
                threshold: gr.Slider(interactive=False),
                download: gr.DownloadButton(interactive=False),
            }
            return {**none, **shown(picture), **told(segmented)(picture, *given)}

        def on_sample(chosen: str, *given: Any) -> Shown:
            return taken(samples[chosen], *given)

        def on_upload(path: str, *given: Any) -> Shown:
            try:
                picture = workbench.read(Path(path))
            finally:
                Path(path).unlink(missing_ok=True)
            # No sample is chosen any more, so that each can be.
            return {**taken(picture, *given), sample: gr.Radio(value=None)}

        def on_segment(picture: Picture | None, *given: Any) -> Shown:
            return segmented(_still(picture), *given)

        def on_slide(scored: ScoredPicture | None, shift: float, least: float) -> Shown:
            kept = _still(scored)
            span = kept.threshold_span
            several = len(kept.result.classes) > 1
            is_off = several and least <= span.low
            return relabelled(kept, shift, None if is_off else least)

        def on_word(scored: ScoredPicture | None, name: str) -> Shown:
            return {heat: heat_of(_still(scored), name)}

        asked = [words, model, word]
        everything = [
            *(sample, picture_kept, scored_kept, preview, message, result),
            *(gamma, threshold, download, word, heat),
        ]
        quiet: dict[str, Any] = dict(api_visibility='private', show_progress='minimal')
        busy = dict(quiet, concurrency_id='model', concurrency_limit=1)
        page.load(on_sample, [sample, *asked], everything, **busy)
        sample.input(on_sample, [sample, *asked], everything, **busy)
        upload.upload(told(on_upload), [upload, *asked], everything, **busy)
        # A menu sends "input" when it loses the focus, too.
        gr.on(
            [segment.click, words.submit, model.change],
            told(on_segment),
            [picture_kept, *asked],
            everything,
            **busy,
        )
        quick = dict(quiet, show_progress='hidden', trigger_mode='always_last')
        gr.on(
            [gamma.input, threshold.input],
            told(on_slide),
            [scored_kept, gamma, threshold],
            [result, download, message],
            **quick,
        )
        word.change(told(on_word), [scored_kept, word], [heat, message], **quick)
    return page


def _still(kept: Kept | None) -> Kept:
    """Return what a session keeps, if it still does."""
    if kept is None:
        raise ValueError('no picture is kept here any more: choose one')
    return kept


def launch_page(
    page: gr.Blocks,
    *,
    host: str,
    port: int,
    max_upload: int,
    wait: bool = True,
) -> None:
    """Serve a page until it is closed.

    Args:
        page: see :func:`build_page`.
        host: address to listen at.
        port: a free one.
        max_upload: size of the largest file that is taken, in bytes.
        wait: for the user to end it; else it is served until ``page.close()``.

    Raises:
        OSError: if the port is taken.
    """
    guards = [Middleware(_OwnOriginOnly)]
    if is_local(host):
        # A page elsewhere whose name is made to mean this machine is not answered.
        names = ['localhost', '127.0.0.1', '[::1]', host]
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=names))
    page.queue(max_size=64)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        prevent_thread_lock=not wait,
        show_error=False,
        footer_links=[],
        run_history=False,
        max_file_size=max_upload,
        state_session_capacity=SESSIONS,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        app_kwargs=dict(middleware=guards),
        theme=_theme(),
        css_paths=_ASSETS / 'page.css',
    )
