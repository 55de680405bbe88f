#!/usr/bin/env bash
# Makes sure that what the tests need beside Python is here; installs Debian's packages where that is possible:
# libGL for OpenCV, which Ultralytics imports, a Chromium for the browser tests, and Chinese letters for its pages.
set -eu
if ! ldconfig -p 2>/dev/null | grep -q 'libGL\.so\.1' && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libgl1 libglib2.0-0 >/dev/null
fi
if command -v fc-list >/dev/null; then letters=$(fc-list :lang=zh); else letters=""; fi
if [ -z "$letters" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends fonts-wqy-microhei >/dev/null
fi
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
elif [ "${CI:-}" = true ]; then
    echo "The browser tests need Chromium: install it, then run make test again." >&2
    exit 1
else
    echo "No Chromium found: the browser tests will be skipped. Install it to run them." >&2
fi
