// What the book's pages do. Everything stays readable, and the menus open, without it.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const page = document.documentElement;

  // Search shows summaries by fetching the pages it found, which a browser refuses to a page opened as a file.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  // Light or dark: the system's choice until the reader makes another, and again once the two agree.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remember = (mode) => {
    try { mode ? localStorage.setItem("mode", mode) : localStorage.removeItem("mode"); } catch {}
  };
  const show = (mode) => {
    page.dataset.theme = mode;
    document.getElementById("theme").setAttribute("aria-pressed", mode === "dark");
  };
  show(page.dataset.theme);
  document.getElementById("theme").addEventListener("click", () => {
    show(page.dataset.theme === "dark" ? "light" : "dark");
    remember((page.dataset.theme === "dark") === system.matches ? null : page.dataset.theme);
  });
  system.addEventListener("change", () => { remember(null); show(system.matches ? "dark" : "light"); });

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

  // A box wider than the column scrolls by itself; while it does, the keyboard reaches it too.
  const resized = new ResizeObserver((entries) => {
    const wide = entries.map(({ target }) => target.scrollWidth > target.clientWidth);
    entries.forEach(({ target }, i) => { wide[i] ? (target.tabIndex = 0) : target.removeAttribute("tabindex"); });
  });

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
      if (!target.matches("div.highlight")) resized.observe(target);
      else if (navigator.clipboard && !target.closest(".cell_output")) addCopyButton(target);
    }
  }, { rootMargin: "300px" });
  const boxes = ".formula, pre, .pst-scrollable-table-container, .output.text_html, div.highlight";
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

  // On paper every fold is open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("article details:not([open])");
    for (const block of opened) block.open = true;
  });
  addEventListener("afterprint", () => { for (const block of opened) block.open = false; });
})();
