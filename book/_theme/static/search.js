// The search page: ranks the places of the book (searching.py lists them) for the words in the address.
(() => {
  const KINDS = ["Chapter", "Section", "", "Exercise"];
  const WEIGHTS = [1.1, 1.15, 1.3, 0.8]; // of a page's opening, a section, a theorem or definition, an exercise
  const APPENDIX = 0.6;
  const SHOWN = 30, BEFORE = 60, LENGTH = 210;

  // Letters without their marks, one for one, so that places in the text stay where they are
  const plain = (text) => [...text.toLowerCase()].map((c) => c.normalize("NFD")[0]).join("");
  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  // A word without its ending: "equations" finds "equation", and "flowing" finds "flow"
  const stem = (word) => (word.length > 4 ? word.replace(/(?:ies|es|s|ing|ed|y)$/, "") : word);

  const asked = new URLSearchParams(location.search).get("q")?.trim() ?? "";
  document.querySelector("form.large input").value = asked;
  const words = plain(asked).split(/[^\p{L}\p{N}.']+/u).filter(Boolean);
  const results = document.getElementById("search-results");
  if (!words.length) return;

  const finders = words.map((word) => new RegExp(`(?<![\\p{L}\\p{N}])${escaped(stem(word))}[\\p{L}\\p{N}]*`, "gu"));
  const phrase = new RegExp(`(?<![\\p{L}\\p{N}])${words.map((word) => `${escaped(stem(word))}[\\p{L}\\p{N}]*`).join("[^\\p{L}\\p{N}]+")}`, "u");

  const score = (kind, title, text, appendix) => {
    let sum = 0;
    for (const finder of finders) {
      const named = title.match(finder)?.length ?? 0, told = text.match(finder)?.length ?? 0;
      if (!named && !told) return 0;
      sum += (named ? 10 : 0) + Math.min(told, 3);
    }
    if (words.length > 1 && phrase.test(text)) sum += 8;
    if (phrase.test(title)) sum = 60 + sum / 10; // what has these words for its name comes first, whatever else tells of it
    return sum * WEIGHTS[kind] * (appendix ? APPENDIX : 1);
  };

  const found = [];
  for (const [path, page, entries] of places) {
    for (const [kind, anchor, title, text] of entries) {
      const value = score(kind, plain(title), plain(text), path.includes("/appendices/"));
      if (value) found.push({ value, path, page, kind, anchor, title, text });
    }
  }
  found.sort((a, b) => b.value - a.value); // of equal ones the first in the book

  const marked = (holder, text) => {
    const cuts = finders.flatMap((finder) => [...plain(text).matchAll(finder)].map((m) => [m.index, m.index + m[0].length]));
    let at = 0;
    for (const [start, end] of cuts.sort((a, b) => a[0] - b[0])) {
      if (start < at) continue;
      holder.append(text.slice(at, start), Object.assign(document.createElement("mark"), { textContent: text.slice(start, end) }));
      at = end;
    }
    holder.append(text.slice(at));
    return holder;
  };
  const excerpt = (text) => {
    const lowered = plain(text);
    const first = phrase.exec(lowered)?.index ?? Math.min(...finders.map((f) => lowered.search(f)).filter((i) => i >= 0));
    let start = Number.isFinite(first) && first > BEFORE ? text.indexOf(" ", first - BEFORE) + 1 : 0;
    if (start > first) start = first;
    const end = text.length > start + LENGTH ? text.lastIndexOf(" ", start + LENGTH) : text.length;
    return `${start ? "… " : ""}${text.slice(start, end)}${end < text.length ? " …" : ""}`;
  };

  const root = document.documentElement.dataset.content_root;
  const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
  const list = make("ol");
  for (const { path, page, kind, anchor, title, text } of found.slice(0, SHOWN)) {
    const item = make("li");
    const link = make("a", { href: `${root}${path}${kind ? `#${anchor}` : ""}`, textContent: title });
    link.addEventListener("click", () => {
      try { localStorage.setItem("search words", words.map(stem).join(" ")); } catch {}
    });
    item.append(link, " ", make("small", { textContent: kind ? `${KINDS[kind]} ${title === page ? "" : `in ${page}`}`.trim() : KINDS[0] }));
    if (text) item.append(marked(make("p", { className: "context" }), excerpt(text)));
    list.append(item);
  }
  const count = found.length;
  const said = count ? `${count} place${count > 1 ? "s" : ""}${count > SHOWN ? `, the first ${SHOWN} of them` : ""}:` : `Nothing has all of these words: ${asked}`;
  results.append(make("p", { textContent: said }), list);
})();
