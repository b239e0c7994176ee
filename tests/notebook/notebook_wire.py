"""The kernel's end of a view's channel in a test, and a text that would break out of its frame."""

from diascope.notebook.channel import received

HOSTILE = "</script><script>parent.wrong = 1; document.title = 'wrong'</script>\"'><img src=x onerror=alert(1)>"


class Wire:
    """The kernel's end of a channel, as `channel.received` has it; what it sends is kept."""

    loop = None

    def __init__(self, desk):
        self.desk, self.sent = desk, []

    def send(self, data):
        self.sent.append(data)

    def hear(self, content):
        """What is sent in answer to `content`."""
        self.sent = []
        received(self, content)
        return self.sent
