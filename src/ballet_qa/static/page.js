() => {
  const box = () => document.querySelector('#ask-box textarea, #ask-box input');
  const panel = () => document.querySelector('#reader-panel');
  const close = () => {
    const side = panel();
    const toggle = side && side.querySelector('.toggle-button');
    if (side && side.classList.contains('open') && toggle) { toggle.click(); const b = box(); if (b) b.focus(); }
  };
  document.addEventListener('keydown', (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.isContentEditable;
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey && box()) {
      event.preventDefault();
      box().focus();
    }
    if (event.key === 'Escape') close();
  });
  document.addEventListener('click', (event) => {
    if (event.target.closest && event.target.closest('[data-close]')) close();
  });
  const follow = new MutationObserver(() => {
    const here = document.querySelector('#reader .bq-here');
    if (here && here !== follow.last) { follow.last = here; here.scrollIntoView({ block: 'center' }); }
    const turns = document.querySelectorAll('#conversation .bq-turn');
    if (turns.length !== follow.turns) {
      if (turns.length > (follow.turns || 0)) {
        // the box stays in view, unless the answer is so long that its beginning would leave it
        const row = document.querySelector('#ask-row');
        if (row) row.scrollIntoView({ block: 'nearest' });
        turns[turns.length - 1].scrollIntoView({ block: 'nearest' });
      }
      follow.turns = turns.length;
    }
  });
  follow.observe(document.body, { childList: true, subtree: true });
}
