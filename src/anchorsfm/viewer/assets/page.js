"use strict";
/* Colours as the system has them, also behind screenshots; pictures of the panels in full size, controls that begin folded away on a phone. */
(() => {
  const scheme = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement, NAME = "data-mantine-color-scheme";
  function follow() {
    const wanted = scheme.matches ? "dark" : "light";
    if (root.hasAttribute(NAME) && root.getAttribute(NAME) !== wanted) root.setAttribute(NAME, wanted);
  }
  new MutationObserver(follow).observe(root, { attributes: true, attributeFilter: [NAME] });
  scheme.addEventListener("change", follow);

  const DARK = "rgb(20, 20, 20)", LIGHT = "#f1f4f7";
  const style = document.createElement("style");  // the scene's own background is written into its element
  style.textContent = `html[${NAME}="light"] div[style*="background-color: ${DARK}"] { background-color: ${LIGHT} !important; }`;
  document.head.append(style);
  const toBlob = HTMLCanvasElement.prototype.toBlob;  // called for screenshots only, which viser renders without a background
  HTMLCanvasElement.prototype.toBlob = function (...rest) {
    const context = this.getContext("2d");
    if (context) {
      context.globalCompositeOperation = "destination-over";
      context.fillStyle = scheme.matches ? DARK : LIGHT;
      context.fillRect(0, 0, this.width, this.height);
    }
    return toBlob.apply(this, rest);
  };

  if (matchMedia("(max-width: 640px)").matches) {
    const label = "AnchorSfM", fold = new MutationObserver(() => {
      const found = [...document.querySelectorAll("#root div")].find((part) => !part.children.length && part.textContent.trim() === label);
      if (found) { fold.disconnect(); setTimeout(() => found.click(), 300); }
    });
    fold.observe(root, { childList: true, subtree: true, characterData: true });
  }

  const large = document.createElement("dialog"), picture = new Image();
  large.append(picture);
  large.style.cssText = "padding: 0; border: 0; max-width: none; max-height: none; background: none; margin: auto;";
  picture.style.cssText = "display: block; max-width: 98vw; max-height: 98dvh; width: 98vw; height: auto; object-fit: contain; cursor: zoom-out;";
  large.addEventListener("click", () => large.close());
  addEventListener("DOMContentLoaded", () => document.body.append(large));
  addEventListener("click", ({ target }) => {
    if (!(target instanceof HTMLImageElement) || target === picture) return;
    picture.src = target.src;
    large.showModal();
  });
  addEventListener("mouseover", ({ target }) => {
    if (target instanceof HTMLImageElement && target !== picture) target.style.cursor = "zoom-in";
  });
})();
