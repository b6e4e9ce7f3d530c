// Work beside the page: a worker made of modules that the page has already, so that it works from a file and offline.

// Starts `flowcourse[module][entry](post)` in a worker and returns the way to it, post(message); what that posts comes to `hear`.
// `needs` are the modules that it imports, in order. Where there are no workers, the page itself does the work.
export function background(needs, module, entry, hear) {
  const { sources } = globalThis.flowcourse;
  const text = [...needs, module].map((name) => `(${sources[name]})();`);
  text.push(`const receive = flowcourse.${module}.${entry}((message) => postMessage(message));`);
  text.push("onmessage = ({ data }) => receive(data);");
  try {
    const url = URL.createObjectURL(new Blob([text.join("\n")], { type: "text/javascript" }));
    const worker = new Worker(url);
    worker.onmessage = ({ data }) => hear(data);
    return (message) => worker.postMessage(message);
  } catch {
    return globalThis.flowcourse[module][entry](hear);
  }
}
