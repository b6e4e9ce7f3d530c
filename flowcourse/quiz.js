// Quizzes that answer in the page. A quiz is found by what it is and not by its position, since pages move outputs about; a
// second run finds it ready.

export function open() {
  for (const quiz of document.querySelectorAll(".flow-quiz:not([data-ready])")) {
    quiz.dataset.ready = "";
    const button = quiz.querySelector("button");
    const status = quiz.querySelector("[role=status]");
    quiz.addEventListener("change", () => {
      button.disabled = false;
      status.textContent = "";
    });
    button.addEventListener("click", () => {
      const picked = quiz.querySelector("input:checked");
      if (!picked) return;
      const right = picked.dataset.right === "1";
      status.dataset.verdict = right ? "right" : "wrong";
      status.textContent = (right ? "✓ Right. " : "✗ Not quite. ") + picked.dataset.feedback;
    });
  }
}
