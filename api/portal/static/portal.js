// Keeps a page up to date while it is open: counts down, and gets it again when something on it has changed.
// All that the pages say and do works without it.
"use strict";

(() => {
  const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const POLL = 15000, SLOWLY = 120000, RENEW = 120000, HIDDEN_FOR = 60000, TRY_AGAIN = 60000;
  const BY_ITSELF = { "X-Lockbox-By-Itself": "yes" };

  const words = (seconds) => {
    const parts = [];
    for (const [unit, size] of UNITS) {
      const count = Math.floor(seconds / size);
      if (count || (unit === "s" && !parts.length)) {
        parts.push(`${count} ${unit}`);
        seconds -= count * size;
      }
      if (parts.length === 2) {
        break;
      }
    }
    return parts.join(" ");
  };

  // What each part was when it came from the server: counting down changes what is shown of it.
  const came = new Map();
  const liveParts = (page) => [...page.querySelectorAll("[data-live][id]")];
  liveParts(document).forEach((part) => came.set(part.id, part.outerHTML));

  // The database's clock decides, not this one: a page says what it was there when the page was made.
  const made = document.documentElement.dataset.at;
  const ahead = made ? Date.now() - Date.parse(made) : 0;
  const left = (until) => Math.floor((Date.parse(until) - (Date.now() - ahead)) / 1000);

  const tick = () => {
    for (const one of document.querySelectorAll("[data-until]")) {
      const seconds = left(one.dataset.until);
      one.textContent = seconds > 0 ? `${words(seconds)} left` : "over";
    }
    for (const one of document.querySelectorAll("[data-ends]")) {
      one.hidden = left(one.dataset.ends) <= 0;
    }
  };

  tick();
  setInterval(tick, 1000);

  const { topics, again } = document.body.dataset;
  if (!topics) {
    return;
  }

  const told = document.getElementById("told");
  const say = (text, link, path) => {
    told.textContent = text;
    if (link) {
      const way = document.createElement("a");
      way.href = path;
      way.textContent = link;
      told.append(" ", way);
    }
  };

  let morph = (old, fresh) => old.replaceWith(fresh);
  window.htmx?.registerExtension("live", {
    init: (inside) => {
      morph = (old, fresh) => {
        const box = document.createDocumentFragment();
        box.append(fresh);
        inside.morph(old, box, false);
      };
    },
  });

  const isWritten = (field) => {
    if (field.matches("[type=checkbox], [type=radio]")) {
      return field.checked !== field.defaultChecked;
    }
    if (field.matches("select")) {
      return field.selectedIndex !== Math.max(0, [...field.options].findIndex((one) => one.defaultSelected));
    }
    return field.value !== field.defaultValue;
  };
  const FIELDS = "input:not([type=hidden]), select, textarea";
  const TEXTS = "input:not([type=hidden], [type=checkbox], [type=radio]), textarea";
  // What was refused comes back in the page itself: it is still somebody's, and not the server's.
  const isKept = (field, fresh) => {
    const theirs = fresh.getElementById(field.id)?.defaultValue ?? "";
    return field.matches("textarea") && field.value !== "" && field.value !== theirs;
  };
  const isHeld = (part, fresh) => [...part.querySelectorAll(FIELDS)].some(
    (field) => field === document.activeElement || isWritten(field) || isKept(field, fresh));

  // What a part says, but for what follows the clock alone: that is brought up to date, and no news to anybody.
  const saying = (part) => {
    if (part.matches("[data-now]")) {
      return "";
    }
    const copy = part.cloneNode(true);
    copy.querySelectorAll("[data-now], [data-until]").forEach((one) => one.remove());
    return copy.textContent.trim();
  };

  // The soonest comes first: what is missing from a list that goes on, and is due no sooner than its last, is on the next
  // page now. What is due sooner is over.
  const due = (item) => Date.parse(item?.querySelector("[data-until]")?.dataset.until);
  const mayHaveMovedOn = (part, fresh) => fresh.querySelector("[data-more]") !== null
    && due(part.closest("li")) >= due([...fresh.querySelectorAll("li:has([data-until])")].at(-1));

  const replaceParts = (fresh) => {
    const changed = [];
    for (const part of liveParts(document)) {
      const now = fresh.getElementById(part.id);
      if (!now && mayHaveMovedOn(part, fresh)) {
        changed.push(part.id);
        continue;
      }
      const html = now ? now.outerHTML : "";
      if (html === came.get(part.id) || isHeld(part, fresh)) {
        continue;
      }
      const before = saying(part);
      if (now) {
        morph(part, document.importNode(now, true));
      } else {
        part.replaceChildren();
      }
      came.set(part.id, html);
      if ((now ? saying(now) : "") !== before || part.id === "last") {
        changed.push(part.id);
      }
    }
    return changed;
  };

  // Forms stay as somebody has filled them in: they get the version that the page shows now, or can no longer be sent.
  const settleForms = (fresh) => {
    const theirs = new Map([...fresh.forms].map((form) => [form.getAttribute("action"), form]));
    const ours = [...document.forms].filter((form) => form.elements.namedItem("version"));
    for (const form of ours) {
      const twin = theirs.get(form.getAttribute("action"));
      if (twin) {
        form.elements.namedItem("version").value = twin.elements.namedItem("version").value;
      }
      for (const button of form.querySelectorAll("button")) {
        button.disabled = !twin && !mayHaveMovedOn(form, fresh);
      }
    }
    const known = new Set(ours.map((form) => form.getAttribute("action")));
    const hasMoved = ours.some((form) => !theirs.has(form.getAttribute("action")) && mayHaveMovedOn(form, fresh));
    return hasMoved || [...theirs.values()].some(
      (form) => form.elements.namedItem("version") && !known.has(form.getAttribute("action")));
  };

  const show = (fresh) => {
    since = fresh.body.dataset.since ?? since;
    const changed = replaceParts(fresh);
    const isMore = settleForms(fresh);
    tick();
    const last = changed.includes("last") ? document.getElementById("last").textContent.trim() : "";
    if (last) {
      say(`${last}.`, isMore && "Load the page again to go on.", again);
    } else if (changed.length === 1 && changed[0] === "looks") {
      say([...document.querySelectorAll("#looks p:not([hidden])")].map((one) => one.textContent).join(" "));
    } else if (changed.length) {
      say("This page was brought up to date.", isMore && "Load it again to go on.", again);
    }
  };

  let since = document.body.dataset.since;
  let isOver = false, isBusy = false, isWanted = false;
  let source = null, polling = 0, hiding = 0, trying = 0;

  // Whoever may no longer read a page has nothing left of it but their own words.
  const takeAway = (heading, text, link, path) => {
    const main = document.getElementById("main"), hadFocus = main.contains(document.activeElement);
    const own = [...main.querySelectorAll(`form[method=post] :is(${TEXTS})`)].filter(
      (field) => field.value.trim() && (field.matches("textarea") || isWritten(field)));
    const made = (name, said) => Object.assign(document.createElement(name), { textContent: said });
    const title = made("h1", heading), way = made("p", "");
    way.append(Object.assign(made("a", link), { href: path }));
    main.replaceChildren(title, made("p", `${text} What it showed was taken away.`), way);
    if (own.length) {
      main.append(made("h2", "What you had written"), ...own.map((field) => made("blockquote", field.value)));
    }
    document.title = `${heading} · Lockbox`;
    if (hadFocus) {
      title.tabIndex = -1;
      title.focus();
    }
  };

  const end = (heading, text, link, path) => {
    isOver = true;
    close();
    takeAway(heading, text, link, path);
    say(text, link, path);
  };

  const refresh = async () => {
    if (isOver || isBusy) {
      isWanted = isBusy;
      return;
    }
    isBusy = true;
    try {
      const answer = await fetch(again, { headers: BY_ITSELF, cache: "no-store" });
      if (new URL(answer.url).pathname.startsWith("/sign-in")) {
        const way = `/sign-in?next=${encodeURIComponent(again)}`;
        end("Signed out", "You are no longer signed in.", "Sign in again", way);
      } else if (answer.status === 403 || answer.status === 404) {
        end("No longer open to you", "This page is no longer open to you.", "Go on from your first page", "/");
      } else if (answer.ok) {
        show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
    } catch {
      // The network is away: it is tried again when the next news come, or with the next poll.
    }
    isBusy = false;
    if (isWanted) {
      isWanted = false;
      setTimeout(refresh, 500);
    }
  };

  const poll = (wanted) => {
    if (wanted && !isOver) {
      // A stream that breaks off again and again puts off nothing.
      polling ||= setInterval(refresh, POLL);
    } else {
      clearInterval(polling);
      polling = 0;
    }
  };

  const open = () => {
    clearTimeout(trying);
    if (isOver || source || document.hidden) {
      return;
    }
    source = new EventSource(`/live?topics=${encodeURIComponent(topics)}&since=${encodeURIComponent(since)}`);
    source.addEventListener("ready", () => poll(false));
    source.addEventListener("news", refresh);
    source.addEventListener("again", () => {
      poll(false);
      refresh();
    });
    source.addEventListener("away", () => poll(true));
    source.addEventListener("ended", refresh);
    source.addEventListener("error", () => {
      poll(true);
      if (source?.readyState === EventSource.CLOSED) {
        source = null;
        trying = setTimeout(open, TRY_AGAIN);
      }
    });
  };

  const close = () => {
    poll(false);
    clearTimeout(trying);
    source?.close();
    source = null;
  };

  const comeBack = () => {
    clearTimeout(hiding);
    if (!source && !isOver) {
      refresh();
      open();
    }
  };

  const renew = () => {
    for (const form of document.querySelectorAll("form[data-renew]")) {
      const body = new URLSearchParams({ csrf: form.elements.namedItem("csrf").value, looking: "on" });
      fetch(form.action, { method: "POST", headers: BY_ITSELF, body, redirect: "manual" }).catch(() => {});
    }
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      hiding = setTimeout(close, HIDDEN_FOR);
    } else {
      comeBack();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && comeBack());
  setInterval(() => document.hidden || refresh(), SLOWLY);
  setInterval(() => document.hidden || isOver || renew(), RENEW);
  open();
})();
