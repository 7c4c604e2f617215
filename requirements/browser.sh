#!/bin/sh
# Installs Debian's Chromium, which the test of the web page runs in, where it may. That
# test is skipped, and says so, where there is none.
set -eu
if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo '==> no chromium here: the page is not tested in a browser'
    exit 0
fi
echo '==> installing chromium'
{
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium
} >/dev/null || echo '==> no chromium could be installed'
