"""The built page (page/static, made from explorer/web by `make page`), and files of one's own made of it."""

from diascope.page.offline import render_html

__all__ = ["render_html"]
