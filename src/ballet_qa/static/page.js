() => {
  const find = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const box = () => find('#ask-box textarea, #ask-box input');
  const panel = () => find('#reader-panel');

  // What is said to people who listen: each answer once, whole. The page itself is drawn anew.
  const voice = document.createElement('div');
  voice.className = 'bq-hidden';
  voice.setAttribute('role', 'status');
  voice.setAttribute('aria-live', 'polite');
  document.body.append(voice);
  const say = (words) => { voice.textContent = ''; setTimeout(() => { voice.textContent = words; }, 60); };

  window.bqFocus = () => { setTimeout(() => { const field = box(); if (field) { field.focus(); field.scrollIntoView({ block: 'nearest' }); } }, 120); };
  window.bqSave = (text, name) => {
    if (!text) return;
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type: name.endsWith('json') ? 'application/json' : 'text/markdown' }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say(`${name} was saved.`);
  };

  const copy = async (text, button) => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // no clipboard on plain http: the old way
      const area = document.createElement('textarea');
      area.value = text;
      area.className = 'bq-hidden';
      document.body.append(area);
      area.select();
      done = document.execCommand('copy');
      area.remove();
    }
    const before = button.dataset.label || button.textContent;
    button.dataset.label = before;
    button.textContent = done ? 'Copied' : 'Not copied';
    button.focus();
    say(button.textContent);
    setTimeout(() => { button.textContent = before; }, 1500);
  };

  // The reader: where one is in the story, from citation to citation, and back to where one was.
  let opener = null;
  const isOpen = () => panel() && panel().classList.contains('open');
  const toggle = () => { const button = panel() && panel().querySelector('.toggle-button'); if (button) button.click(); };
  const close = () => {
    if (!isOpen()) return;
    toggle();
    const back = opener && opener.isConnected ? opener : opener && find(opener.bqSelector);
    (back || box() || document.body).focus();
  };
  const remember = (button) => {
    const { passage, turn } = button.dataset;
    opener = button;
    opener.bqSelector = `[data-passage="${CSS.escape(passage)}"]` + (turn ? `[data-turn="${CSS.escape(turn)}"]` : '');
  };
  const scroller = () => {
    for (let part = find('#reader .bq-story'); part; part = part.parentElement) {
      if (/(auto|scroll)/.test(getComputedStyle(part).overflowY) && part.scrollHeight > part.clientHeight + 1) return part;
    }
    return null;
  };
  const step = (way) => {
    const marks = all('#reader mark');
    if (!marks.length) return;
    const now = marks.findIndex((mark) => mark.classList.contains('bq-now'));
    const next = marks[(Math.max(now, 0) + way + marks.length) % marks.length];
    marks.forEach((mark) => mark.classList.toggle('bq-now', mark === next));
    next.scrollIntoView({ block: 'center' });
    say(`Citation ${marks.indexOf(next) + 1} of ${marks.length}: ${next.textContent}`);
  };
  const where = () => {
    const story = find('#reader .bq-story');
    const frame = scroller();
    if (!story || !frame) return;
    const top = frame.getBoundingClientRect().top;
    const middle = top + frame.clientHeight / 3;
    const paragraphs = all('#reader .bq-para');
    let current = paragraphs[0];
    for (const part of paragraphs) if (part.getBoundingClientRect().top <= middle) current = part;
    const place = story.querySelector('[data-where]');
    if (place && current) place.textContent = `paragraph ${current.dataset.number} of ${story.dataset.last}`;
    const bar = story.querySelector('.bq-progress span');
    if (bar) bar.style.width = `${Math.round(100 * frame.scrollTop / Math.max(1, frame.scrollHeight - frame.clientHeight))}%`;
  };
  const opened = (story) => {
    const frame = scroller();
    if (frame && !frame.bqFollowed) { frame.bqFollowed = true; frame.addEventListener('scroll', () => requestAnimationFrame(where), { passive: true }); }
    const here = story.querySelector('.bq-here');
    if (here) {
      here.scrollIntoView({ block: 'center' });
      const mark = all('#reader mark')[Number(story.dataset.now || -1)] || here.querySelector('mark');
      if (mark) mark.classList.add('bq-now');
    } else if (frame) frame.scrollTop = 0;
    setTimeout(() => { const head = story.querySelector('h2'); if (head && isOpen()) head.focus({ preventScroll: true }); where(); }, 350);
  };

  // The passages beside the conversation are those of the answer in view.
  let inView = null;
  const showCards = (turn) => {
    const groups = all('#passages [data-cards]');
    if (!groups.length) { inView = null; return; }
    const wanted = groups.some((group) => group.dataset.cards === String(turn)) ? String(turn) : groups[groups.length - 1].dataset.cards;
    groups.forEach((group) => { group.hidden = group.dataset.cards !== wanted; });
    all('#conversation .bq-turn').forEach((part) => part.classList.toggle('bq-current', part.dataset.turn === wanted && groups.length > 1));
    inView = wanted;
  };
  const follow = () => {
    const turns = all('#conversation .bq-turn[data-turn]');
    if (turns.length < 2 || !find('#conversation').offsetParent) return;
    const page = document.scrollingElement;
    const part = page.scrollTop / Math.max(1, page.scrollHeight - page.clientHeight);
    const line = innerHeight * (0.2 + 0.7 * part);  // at the top the first, at the bottom the last
    let current = turns[0];
    for (const turn of turns) if (turn.getBoundingClientRect().top < line) current = turn;
    if (current.dataset.turn !== inView) showCards(current.dataset.turn);
  };
  let still = true;  // a click on an answer outranks scrolling until the next scroll
  addEventListener('scroll', () => { if (still) return; requestAnimationFrame(follow); }, { passive: true, capture: true });
  addEventListener('wheel', () => { still = false; }, { passive: true, capture: true });
  addEventListener('touchmove', () => { still = false; }, { passive: true, capture: true });
  addEventListener('keydown', (event) => { if (/^(Page|Arrow|Home|End)/.test(event.key)) still = false; });

  document.addEventListener('keydown', (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.isContentEditable;
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const field = [find('#search-box textarea, #search-box input'), find('#library-box textarea, #library-box input'), box()].find((part) => part && part.offsetParent);
      if (field) { event.preventDefault(); field.focus(); }
    }
    if (event.key === 'Escape') close();
  });
  document.addEventListener('click', (event) => {
    const button = event.target.closest && event.target.closest('button');
    if (!button) return;
    const { copy: words, link, step: way, passage, turn } = button.dataset;
    if (words !== undefined) copy(words, button);
    if (link !== undefined) {
      const address = new URL(location.pathname, location.href);
      address.searchParams.set('q', link);
      copy(address.href, button);
    }
    if (way !== undefined) step(Number(way));
    if ('close' in button.dataset) close();
    if (passage !== undefined) remember(button);
    if (turn !== undefined) { still = true; showCards(turn); }
  }, true);

  let turns = 0;
  let lastTurn = null;
  let lastStory = null;
  let cards = 0;
  const watch = new MutationObserver((changes) => {
    const story = find('#reader .bq-story[data-last]');
    if (story && story !== lastStory) { lastStory = story; opened(story); }
    // Gradio may keep a node and change what is in it, so cards are told by what changed.
    if (changes.some((change) => change.target.closest && change.target.closest('#passages, #conversation'))) {
      const count = all('#passages [data-cards]').length;
      showCards(count === cards ? inView : -1);
      cards = count;
    }
    const told = all('#conversation .bq-turn[data-turn]');
    const newest = told[told.length - 1] || null;
    const waiting = find('#conversation .bq-pending');
    if (waiting && waiting !== watch.waiting) { watch.waiting = waiting; waiting.scrollIntoView({ block: 'nearest' }); }
    if (newest !== lastTurn) {
      lastTurn = newest;
      if (told.length > turns) {
        const row = find('#ask-row');
        if (row) row.scrollIntoView({ block: 'nearest' });
        newest.scrollIntoView({ block: 'nearest' });
        say(newest.dataset.spoken);
        still = true;
        if (document.activeElement === document.body) window.bqFocus();
      }
      if (!waiting) turns = told.length;
    }
    const alarm = find('#conversation .bq-error');
    if (alarm && alarm !== watch.alarm) alarm.scrollIntoView({ block: 'nearest' });
    watch.alarm = alarm;
  });
  watch.observe(document.body, { childList: true, subtree: true });
}
