// What the book's pages do. Everything stays readable, and the menus open, without it.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const page = document.documentElement;

  // Light or dark: what the system says, until the reader chooses otherwise.
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("mode"); } catch {}
  const show = () => {
    page.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
    document.getElementById("theme").setAttribute("aria-pressed", page.dataset.theme === "dark");
  };
  document.getElementById("theme").addEventListener("click", () => {
    const other = page.dataset.theme === "dark" ? "light" : "dark";
    chosen = (other === "dark") === system.matches ? null : other;
    try { chosen ? localStorage.setItem("mode", chosen) : localStorage.removeItem("mode"); } catch {}
    show();
  });
  system.addEventListener("change", show);
  show();

  // "/" and Ctrl+K lead to the search field.
  const field = document.querySelector("#sidebar input");
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.isContentEditable;
    const asked = (event.key === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing);
    if (!asked || event.defaultPrevented) return;
    event.preventDefault();
    const sidebar = document.getElementById("sidebar");
    if (!sidebar.checkVisibility()) sidebar.showPopover();
    field.select();
  });

  // Who comes from a search finds its words marked. The marks lie over the text, so nothing in the page is changed.
  const mark = () => {
    let words = [];
    try {
      words = (localStorage.getItem("search words") ?? "").toLowerCase().split(" ").filter(Boolean);
      localStorage.removeItem("search words");
    } catch {}
    if (!words.length || !CSS.highlights) return;
    const walker = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
    const ranges = [];
    while (walker.nextNode()) {
      const node = walker.currentNode, text = node.data.toLowerCase();
      if (node.parentElement.closest("script, style, .katex")) continue;
      for (const word of words) {
        for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
          ranges.push(new StaticRange({ startContainer: node, startOffset: at, endContainer: node, endOffset: at + word.length }));
        }
      }
    }
    CSS.highlights.set("search", new Highlight(...ranges));
  };
  mark();

  // Menus in the bar close on Escape, on a choice, and when the reader goes elsewhere.
  addEventListener("click", (event) => {
    const own = event.target.closest("summary")?.parentElement;
    for (const menu of all("details.menu[open]")) if (menu !== own) menu.open = false;
    if (event.target.closest("#contents a")) document.getElementById("contents").hidePopover();
  });
  addEventListener("keydown", (event) => {
    const menu = document.querySelector("details.menu[open]");
    if (event.key !== "Escape" || !menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  // The list of contents marks the section that is being read: the innermost one a third of the way down the window.
  const links = new Map(all("#contents a").map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const reading = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) reading[isIntersecting ? "add" : "delete"](target);
    const current = sections.findLast((section) => reading.has(section));
    for (const [id, link] of links) {
      if (id === current?.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-33% 0px -66% 0px" });
  const sections = all("article section section[id]").filter((section) => links.has(section.id));
  for (const section of sections) watcher.observe(section);

  // A box wider than the column scrolls by itself; while it does, the keyboard reaches it too, and its cut edges fade.
  const fade = (box, room) => {
    box.classList.toggle("cut-left", room > 1 && box.scrollLeft > 1);
    box.classList.toggle("cut-right", room > 1 && box.scrollLeft < room - 1);
  };
  const roomOf = (box) => box.scrollWidth - box.clientWidth;
  const scrolled = (event) => fade(event.target, roomOf(event.target));
  const resized = new ResizeObserver((entries) => {
    const rooms = entries.map(({ target }) => roomOf(target));
    entries.forEach(({ target }, i) => {
      if (rooms[i] > 0) {
        target.tabIndex = 0;
        target.addEventListener("scroll", scrolled, { passive: true });
      } else target.removeAttribute("tabindex");
      fade(target, rooms[i]);
    });
  });
  const watched = new Set();
  const watch = (box) => {
    watched.add(box);
    resized.unobserve(box);
    resized.observe(box);
  };
  // A font that comes late changes what is in a box, and not the box.
  document.fonts.addEventListener("loadingdone", () => watched.forEach(watch));

  // Every block of code has a button that copies it.
  const addCopyButton = (block) => {
    const button = Object.assign(document.createElement("button"), { className: "copy", textContent: "Copy" });
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("pre").textContent.trimEnd());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  };

  // Both wait until the reader comes near, since a long page has hundreds of boxes.
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      if (!target.matches("div.highlight")) watch(target);
      else if (navigator.clipboard && !target.closest(".cell_output")) addCopyButton(target);
    }
  }, { rootMargin: "300px" });
  const boxes = ".formula, pre, .scrolled, .output.text_html, div.highlight";
  for (const box of all(`article :is(${boxes})`)) near.observe(box);

  // Copying a text copies each formula as its TeX source between dollars.
  document.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (selection.isCollapsed || !event.clipboardData) return;
    const range = selection.getRangeAt(0).cloneRange();
    const formulaAt = (node) => (node.closest ? node : node.parentElement)?.closest(".katex");
    const first = formulaAt(range.startContainer), last = formulaAt(range.endContainer);
    if (first) range.setStartBefore(first);
    if (last) range.setEndAfter(last);
    const holder = document.createElement("div");
    holder.append(range.cloneContents());
    const formulas = all(".katex", holder);
    if (!formulas.length) return;
    for (const formula of formulas) {
      const dollars = formula.parentElement.classList.contains("katex-display") ? "$$" : "$";
      formula.textContent = dollars + formula.querySelector("annotation").textContent + dollars;
    }
    event.clipboardData.setData("text/html", holder.innerHTML);
    event.clipboardData.setData("text/plain", holder.textContent);
    event.preventDefault();
  });

  // A folded block opens when a link leads into it. Sections are laid out when they come near, which may move the
  // place that a link leads to: go there again once they are.
  const follow = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    requestAnimationFrame(() => requestAnimationFrame(() => target?.scrollIntoView()));
  };
  addEventListener("hashchange", follow);
  if (location.hash) addEventListener("load", follow);

  // On paper every fold is open, but for code that was hidden, and the page is light.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("article details:not([open]):not(.hide:not(.claims))");
    for (const block of opened) block.open = true;
    page.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    for (const block of opened) block.open = false;
    show();
  });
})();
