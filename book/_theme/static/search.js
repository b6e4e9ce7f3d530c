// The search page: ranks the places of the book (searching.py lists them) for the words in the address.
(() => {
  const KINDS = ["Chapter", "Section", "", "Exercise"];
  const WEIGHTS = [1.1, 1.15, 1.3, 0.8]; // of a page's opening, a section, a theorem or definition, an exercise
  const APPENDIX = 0.6, BIBLIOGRAPHY = 0.2, LATER = 0.8; // the last one of second readings and lists of exercises
  // What readers type for what the book spells out, or says in other words
  const OTHERWISE = {
    cfg: ["classifier-free", "without a classifier"],
    cfm: ["conditional flow matching"],
    cnf: ["continuous normalizing flow"],
    diffusion: ["ddpm", "edm"],
    dopri5: ["dormand-prince"],
    fm: ["flow matching"],
    kl: ["kullback-leibler"],
    lipschitz: ["picard-lindelof"],
    maf: ["masked autoregressive"],
    nfe: ["number of evaluations", "evaluations of the field", "evaluations"],
    nll: ["negative log-likelihood", "likelihood"],
    ode: ["differential equation"],
    ot: ["optimal transport", "optimal pairs"],
    rk4: ["runge-kutta"],
    sd3: ["stable diffusion 3"],
    vp: ["variance-preserving"],
    wasserstein: ["w2"],
    w2: ["wasserstein"],
  };
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

  const one = (word) => `${escaped(stem(word))}[\\p{L}\\p{N}]*`;
  const several = (text) => text.split(/[^\p{L}\p{N}]+/u).map(one).join("[^\\p{L}\\p{N}]+");
  const forms = words.map((word) => `(?:${[one(word), ...(OTHERWISE[word] ?? []).map(several)].join("|")})`);
  const finders = forms.map((form) => new RegExp(`(?<![\\p{L}\\p{N}])${form}`, "gu"));
  const phrase = new RegExp(`(?<![\\p{L}\\p{N}])${forms.join("[^\\p{L}\\p{N}]+")}`, "u");

  // How well a place answers, and which of the words it has
  const score = (kind, title, text, weight) => {
    const has = [];
    let sum = 0;
    for (const finder of finders) {
      const named = title.match(finder)?.length ?? 0, told = text.match(finder)?.length ?? 0;
      has.push(named || told ? 1 : 0);
      sum += (named ? 10 : 0) + Math.min(told, 3);
    }
    if (words.length > 1 && phrase.test(text)) sum += 8;
    if (phrase.test(title)) sum = 60 + sum / 10; // what has these words for its name comes first, whatever else tells of it
    return { value: sum * WEIGHTS[kind] * weight, has };
  };
  const weigh = (path, title) => {
    if (path.includes("/bibliography")) return BIBLIOGRAPHY;
    return (path.includes("/appendices/") ? APPENDIX : 1) * (/^(second reading|exercises$)/.test(title) ? LATER : 1);
  };

  let found = [];
  for (const [path, page, entries] of places) {
    for (const [kind, anchor, title, text] of entries) {
      const { value, has } = score(kind, plain(title), plain(text), weigh(path, plain(title)));
      if (value) found.push({ value, has, path, page, kind, anchor, title, text });
    }
  }
  // Where no place has all words, those are shown that have the most, a rare word counting more than a frequent one
  const whole = found.some(({ has }) => !has.includes(0));
  const rarity = words.map((_, i) => 1 / Math.sqrt(1 + found.filter(({ has }) => has[i]).length));
  const worth = ({ has }) => has.reduce((sum, there, i) => sum + there * rarity[i], 0);
  const most = Math.max(...found.map(worth));
  found = found.filter((place) => worth(place) === most);
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
  const counted = `${count} place${count > 1 ? "s" : ""}${count > SHOWN ? `, the first ${SHOWN} of them` : ""}:`;
  const missed = `Nothing has all of these words: ${asked}${count ? ". Some of them are in" : ""}`;
  const said = whole ? counted : `${missed}${count ? ` ${counted}` : ""}`;
  results.append(make("p", { textContent: said }), list);
})();
