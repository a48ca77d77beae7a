// The shared worker: one event stream for all tabs of this browser.

import { LiveSource } from "./live-source.js";

const source = new LiveSource();

self.onconnect = ({ ports: [port] }) => {
  let end = () => {};
  port.addEventListener("close", () => end()); // a tab that was killed says no goodbye
  port.onmessage = ({ data }) => {
    end();
    if (data.after !== undefined) end = source.listen(data.after, (message) => port.postMessage(message));
  };
};
