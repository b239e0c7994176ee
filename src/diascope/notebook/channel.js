// A widget that shows nothing: it carries what the frames of one view ask to the kernel, and the kernel's answers back.
//
// 1. A frame says its id when it loads (recorded.js). If this channel is of that id and the frame stands in this document, it gets a
//    port; so do the frames that said it before this script came.
// 2. A port's requests are numbered anew, for several frames may show one view, and sent to the kernel; answers go back by number.
// 3. When the kernel has gone, its frames are told.
export default {
  initialize({ model }) {
    const id = model.get("frame");
    const ports = new Set();
    const asked = new Map(); // our number -> the port and its number
    let number = 0;
    const frames = () => [...document.querySelectorAll("iframe[data-diascope]")].filter((f) => f.dataset.diascope === id).map((f) => f.contentWindow);
    const connect = (frame) => {
      const { port1, port2 } = new MessageChannel();
      ports.add(port1);
      port1.onmessage = ({ data }) => {
        asked.set(++number, [port1, data.n]);
        try {
          model.send({ ...data, n: number });
        } catch {
          leave();
        }
      };
      frame.postMessage({ diascope: id }, "*", [port2]);
    };
    const hear = (event) => {
      if (event.data?.diascope === id && frames().includes(event.source)) connect(event.source);
    };
    const answer = (data) => {
      const [port, n] = asked.get(data.n) ?? [];
      port?.postMessage({ ...data, n });
      if (data.last) asked.delete(data.n);
    };
    const leave = () => ports.forEach((port) => port.postMessage({ gone: true }));
    addEventListener("message", hear);
    model.on("msg:custom", answer);
    frames().forEach(connect);
    return () => {
      removeEventListener("message", hear);
      model.off("msg:custom", answer);
      leave();
    };
  },
};
