"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const press = (buttons, chosen) =>
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));

  // Colour scheme: as the system, light, dark. A page from a file may not be allowed to remember it.
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const schemes = ["auto", "light", "dark"];
  const remember = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("pocketgan-theme");
      localStorage.setItem("pocketgan-theme", value);
    } catch { /* kept for this visit only */ }
    return null;
  };
  const wear = (scheme) => {
    if (scheme === "auto") delete root.dataset.theme;
    else root.dataset.theme = scheme;
    theme.textContent = scheme[0].toUpperCase() + scheme.slice(1);
    theme.setAttribute("aria-label", `Colour scheme: ${scheme === "auto" ? "as the system" : scheme}`);
  };
  let scheme = schemes.includes(remember()) ? remember() : "auto";
  wear(scheme);
  theme.addEventListener("click", () => {
    scheme = schemes[(schemes.indexOf(scheme) + 1) % schemes.length];
    wear(scheme);
    remember(scheme);
  });

  // Slider: the range input serves keyboards and screen readers, the whole picture serves pointers.
  all(".compare").forEach((box) => {
    const range = box.querySelector("input");
    const show = () => {
      box.style.setProperty("--cut", `${range.value}%`);
      range.setAttribute("aria-valuetext", `${range.value} %`);
    };
    const follow = (event) => {
      const frame = box.getBoundingClientRect();
      range.value = String((100 * (event.clientX - frame.left)) / frame.width);
      show();
    };
    range.addEventListener("input", show);
    box.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      box.setPointerCapture(event.pointerId);
      range.focus({ preventScroll: true });
      follow(event);
    });
    box.addEventListener("pointermove", (event) => {
      if (box.hasPointerCapture(event.pointerId)) follow(event);
    });
    show();
  });

  // Which picture, and what is on the slider's left.
  const thumbs = all(".thumbs button");
  const panels = all(".picture");
  const choose = (index) => {
    press(thumbs, thumbs[index]);
    panels.forEach((panel, number) => { panel.hidden = number !== index; });
  };
  thumbs.forEach((thumb, index) => {
    thumb.addEventListener("click", () => choose(index));
    thumb.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = (index + step + thumbs.length) % thumbs.length;
      thumbs[next].focus();
      choose(next);
    });
  });
  panels.forEach((panel) => {
    const under = panel.querySelector(".under");
    const tag = panel.querySelector(".tag.left");
    const sides = { original: [under.src, tag.textContent, under.alt] };
    const input = panel.querySelector("img.input");
    if (input) sides.input = [input.src, "Input", input.alt];
    const buttons = all(".modes button", panel);
    buttons.forEach((button) => button.addEventListener("click", () => {
      [under.src, tag.textContent, under.alt] = sides[button.dataset.side];
      press(buttons, button);
    }));
  });

  // Layer chart: what the pointer or the arrow keys are on, in words.
  all(".layers").forEach((chart) => {
    const plot = chart.querySelector(".plot");
    const readout = chart.querySelector(".readout");
    const hits = all(".hit", chart);
    let at = -1;
    const mark = (index) => {
      hits[at]?.classList.remove("on");
      at = index;
      hits[at]?.classList.add("on");
      readout.textContent = hits[at]?.dataset.layer ?? readout.dataset.hint;
      readout.classList.toggle("on", at >= 0);
    };
    plot.tabIndex = 0;
    const point = (event) => {
      const frame = plot.getBoundingClientRect();
      const index = Math.floor((hits.length * (event.clientX - frame.left)) / frame.width);
      mark(Math.min(hits.length - 1, Math.max(0, index)));
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      mark(Math.min(hits.length - 1, Math.max(0, at + step)));
    });
  });

  const copy = document.getElementById("copy");
  copy?.addEventListener("click", async () => {
    const command = document.getElementById("command");
    try {
      await navigator.clipboard.writeText(command.textContent);
      copy.textContent = "Copied";
    } catch { // not allowed on some file pages: select it instead
      getSelection().selectAllChildren(command);
      copy.textContent = "Selected";
    }
  });
})();
