"""Serve a page to try words on pictures: in the browser, on this machine.

    zs3 web
    zs3 web --models clip_dense/photo_vitb16 zegclip/voc_vitb16=zegclip_voc.pth

The page is at http://127.0.0.1:7860 until Ctrl-C; nothing is loaded from, or sent to,
the internet. Without --models those are offered that ship with the package; they know
drawn scenes only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import sys
import tempfile
from collections.abc import Sequence

from _arguments import at_least_one

LOCAL, PORT = '127.0.0.1', 7860
MEBIBYTE = 2**20


def offer(text: str) -> tuple[str, str | None]:
    """Read CONFIG or CONFIG=CHECKPOINT."""
    config, _, checkpoint = text.partition('=')
    if not config:
        raise argparse.ArgumentTypeError(
            f'expected CONFIG or CONFIG=CHECKPOINT, got {text!r}'
        )
    return config, checkpoint or None


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, rest = (__doc__ or '').partition('\n')
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--models',
        nargs='+',
        type=offer,
        metavar='CONFIG[=CHECKPOINT]',
        help='what the page offers: paths or names of configs, each with its trained '
        'weights if anything in it learns. Default: models that ship with the package',
    )
    parser.add_argument(
        '--host',
        default=LOCAL,
        help='address to listen at; 0.0.0.0 lets every machine in reach use the page. '
        f'Default: {LOCAL}, this machine alone',
    )
    parser.add_argument(
        '--port', type=int, default=PORT, help=f'port to listen at. Default: {PORT}'
    )
    parser.add_argument(
        '--device',
        help='such as cpu or cuda:0. Default: an accelerator if there is one',
    )
    parser.add_argument(
        '--max-pixels',
        type=at_least_one,
        default=2**25,
        metavar='N',
        help='largest picture that is read. Default: 33554432 (2**25)',
    )
    parser.add_argument(
        '--max-upload',
        type=at_least_one,
        default=32,
        metavar='MB',
        help='largest file that is taken, in MiB. Default: 32',
    )
    args = parser.parse_args(argv)
    if not 0 < args.port < 2**16:
        parser.error(f'--port takes 1 to 65535, got {args.port}')
    if importlib.util.find_spec('gradio') is None:
        parser.exit(2, 'error: the page needs Gradio: pip install "zs3_mmseg[web]"\n')
    try:
        require_free(args.host, args.port)
    except OSError as error:
        parser.exit(2, f'error: {args.host}, port {args.port}: {error.strerror}\n')
    return args


def require_free(host: str, port: int) -> None:
    """Raise an ``OSError`` where nothing can listen, before models are loaded."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port that was left a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C; mistakes end with status 2."""
    args = parse_args(argv)
    # Uploads and downloads lie here, and are gone when the page is closed.
    with tempfile.TemporaryDirectory(prefix='zs3_web_') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder
        return serve(args)


def serve(args: argparse.Namespace) -> int:
    from zs3_mmseg.apis.web.page import build_page, is_local, launch_page
    from zs3_mmseg.apis.web.workbench import SHIPPED, Workbench
    from zs3_mmseg.engine.launch import one_line_errors
    from zs3_mmseg.engine.runner import route_mmengine_loading

    with one_line_errors():
        route_mmengine_loading()
        workbench = Workbench(args.models or SHIPPED, args.device, args.max_pixels)
        page = build_page(workbench)
        print(f'The page: http://{args.host}:{args.port} (Ctrl-C ends it)', flush=True)
        if not is_local(args.host):
            print('Every machine that reaches this one can use it.', flush=True)
        launch_page(
            page,
            host=args.host,
            port=args.port,
            max_upload=args.max_upload * MEBIBYTE,
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
