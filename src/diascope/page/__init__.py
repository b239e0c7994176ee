"""The built page (page/static, made from explorer/web by `make page`)."""
