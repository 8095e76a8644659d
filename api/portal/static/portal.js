// Keeps a page up to date while it is open: counts down, and gets it again when something on it has changed.
// All that the pages say and do works without it.
"use strict";

(() => {
  const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const POLL = 15000, SLOWLY = 120000, RENEW = 120000, HIDDEN_FOR = 60000, TRY_AGAIN = 60000, PAUSE = 1000;
  const WEEK = 7 * 86400, MOST_NAMED = 3, GONE = "It is no longer here";
  const BY_ITSELF = { "X-Lockbox-By-Itself": "yes" };

  const words = (seconds, units = UNITS) => {
    const parts = [];
    for (const [unit, size] of units) {
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

  // What follows the clock is emptied, so that two versions of a part do not differ by it alone.
  const withoutClock = (page) => {
    page.querySelectorAll("[data-until]").forEach((one) => one.replaceChildren());
    page.querySelectorAll("time[data-away]").forEach((one) => {
      one.dataset.away = "";
    });
    return page;
  };

  // What each part was when it came from the server: counting down changes what is shown of it.
  const came = new Map();
  const liveParts = (page) => [...page.querySelectorAll("[data-live][id]")];
  withoutClock(document);
  liveParts(document).forEach((part) => came.set(part.id, part.cloneNode(true)));

  // The database's clock decides, not this one: a page says what it was there when the page was made.
  const made = document.documentElement.dataset.at;
  const ahead = made ? Date.now() - Date.parse(made) : 0;
  const left = (until) => Math.floor((Date.parse(until) - (Date.now() - ahead)) / 1000);

  // How far away a time is, as the style sheet shows it beside the time.
  const away = (seconds) => {
    const apart = Math.abs(seconds), said = words(apart, UNITS.slice(0, apart < WEEK ? 3 : 1));
    return said ? (seconds < 0 ? `${said} ago` : `in ${said}`) : "now";
  };

  const tick = () => {
    for (const one of document.querySelectorAll("[data-until]")) {
      const seconds = left(one.dataset.until);
      one.textContent = seconds > 0 ? `${words(seconds)} left` : "over";
    }
    for (const one of document.querySelectorAll("[data-ends]")) {
      one.hidden = left(one.dataset.ends) <= 0;
    }
    for (const one of document.querySelectorAll("[data-bar]")) {
      one.value = Math.max(0, left(one.dataset.bar));
    }
    for (const one of document.querySelectorAll("time[data-away]")) {
      one.dataset.away = away(left(one.dateTime));
    }
  };

  tick();
  setInterval(tick, 1000);

  // A page that answers a form stands at the address at which it is got again: loading it again sends nothing.
  if (document.body.dataset.reload) {
    history.replaceState(null, "", document.body.dataset.reload);
  }

  // The browser's time zone: the first sign-in uses it, and whoever has none is offered it.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
  const offer = document.getElementById("zone-offer");
  const stored = (name, value) => {
    try {
      return value ? localStorage.setItem(name, value) : localStorage.getItem(name);
    } catch {
      return null;
    }
  };
  if (/^[A-Z][A-Za-z0-9_+/-]{1,63}$/.test(zone) && !/^(Etc\/)?(UTC|UCT|GMT)$/.test(zone)) {
    if (document.body.dataset.again === undefined) {
      const isHttps = location.protocol === "https:";
      const name = `${isHttps ? "__Host-" : ""}lockbox-zone`;
      document.cookie = `${name}=${zone}; path=/; max-age=900; samesite=lax${isHttps ? "; secure" : ""}`;
    }
    if (offer && stored("zone-kept") !== zone) {
      document.getElementById("zone-here").textContent = zone;
      offer.elements.namedItem("time_zone").value = zone;
      offer.hidden = false;
      document.getElementById("zone-keep").addEventListener("click", () => {
        stored("zone-kept", zone);
        offer.hidden = true;
      });
    }
  }

  // The form to ask offers no window above what the chosen customer allows.
  const customer = document.getElementById("tenant");
  const lasting = document.querySelector("select[data-windows]");
  const offerWindows = () => {
    const options = [...document.querySelectorAll("option[data-longest]")];
    const longest = Number(options.find((one) => one.value === customer.value.trim())?.dataset.longest);
    if (!longest) {
      return;
    }
    const wanted = Math.min(Number(lasting.value), longest);
    const offered = new Set([...lasting.dataset.windows.split(" ").map(Number), wanted, longest]);
    const hours = UNITS.slice(1);
    const taken = [...offered].filter((one) => one <= longest).sort((one, other) => one - other);
    lasting.replaceChildren(...taken.map((one) => new Option(words(one, hours), one, one === wanted, one === wanted)));
  };
  if (customer && lasting) {
    customer.addEventListener("change", offerWindows);
  }

  // The form to ask shows the parameters of the chosen service alone.
  const chosenService = document.getElementById("service");
  const parametersOf = [...document.querySelectorAll("fieldset[data-of]")];
  const offerParameters = () => {
    for (const one of parametersOf) {
      one.hidden = one.disabled = one.dataset.of !== chosenService.value;
    }
  };
  if (chosenService && parametersOf.length) {
    chosenService.addEventListener("change", offerParameters);
    offerParameters();
  }

  // A button says for how long it approves, as it is chosen; and a reason is asked for by the button that needs one.
  document.addEventListener("change", ({ target }) => {
    const shown = target.id && document.querySelector(`[data-chosen="${CSS.escape(target.id)}"]`);
    if (shown) {
      shown.textContent = target.selectedOptions[0].dataset.short;
    }
  });
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button[data-comment]");
    if (button) {
      button.form.elements.namedItem("comment").required = button.dataset.comment === "required";
    }
  });

  const { topics, again } = document.body.dataset;
  if (!topics) {
    return;
  }

  const announcement = document.getElementById("announcement");
  document.getElementById("dismiss").addEventListener("click", () => announcement.replaceChildren());
  const say = (text, link, path) => {
    announcement.textContent = text;
    if (link) {
      const way = document.createElement("a");
      way.href = path;
      way.textContent = link;
      announcement.append(" ", way);
    }
  };

  // While a part is morphed, what bears this mark is left alone: it is somebody's, and not the server's.
  const HELD = "hx-morph-skip";
  let morph = (old, fresh) => old.replaceWith(fresh);
  let canHold = false;
  window.htmx?.registerExtension("live", {
    init: (inside) => {
      canHold = true;
      htmx.config.morphIgnore.push("open");
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
    return field.matches(TEXTS) && field.value !== "" && field.value !== theirs;
  };
  const isFilledIn = (form, fresh) => {
    const fields = [...form.querySelectorAll(FIELDS)];
    return fields.length && (fields.includes(document.activeElement)
      || fields.some((field) => isWritten(field) || isKept(field, fresh)));
  };
  // A form that decides in more than one way is known by its name, for where it goes changes with what may be decided.
  const keyOf = (form) => form.id || form.getAttribute("action");
  const goesTo = (button) => button.getAttribute("formaction") ?? button.form.getAttribute("action");
  const buttonsOf = (form) => [...form.querySelectorAll("button:not([hidden])")];
  const heldIn = (part, fresh) => [...part.querySelectorAll("form, [role=alert]")].filter(
    (one) => one.matches("[role=alert]") || isFilledIn(one, fresh));

  // What a part says, but for what is somebody's own, follows the clock alone, or tells how a mail of a move fared:
  // that is no news to anybody.
  const saying = (part) => {
    if (part.matches("[data-now]")) {
      return "";
    }
    const copy = part.cloneNode(true);
    copy.querySelectorAll("[data-now], [data-until], [role=alert], textarea").forEach((one) => one.remove());
    return copy.textContent.trim();
  };

  const rowIn = (page, id) => page.querySelector(`[data-row="${id}"]`);
  const rowsOf = (page) => [...page.querySelectorAll("[data-row]")];
  const nameOf = (row) => row.querySelector("h2").textContent.trim();

  // The soonest comes first: what is missing from a list that goes on, and is due no sooner than its last, is on the
  // next page now. What is due sooner is over. From a list of all that there ever was, nothing goes but to the next page.
  const due = (item) => Date.parse(item?.querySelector("[data-until]")?.dataset.until);
  const mayHaveMovedOn = (row, fresh) => {
    const more = fresh.querySelector("[data-more]");
    return more !== null && (more.dataset.more === "any"
      || due(row) >= Math.max(...[...fresh.querySelectorAll("[data-row]:has([data-until])")].map(due)));
  };

  // What has become of a request that a list no longer has is read where everybody reads it, on its own page.
  const fateOf = async (row) => {
    const isTimeOver = left(row.querySelector("[data-until]")?.dataset.until) <= 0;
    try {
      const answer = await fetch(`/requests/${row.dataset.row}`, { headers: BY_ITSELF, cache: "no-store" });
      const page = new DOMParser().parseFromString(answer.ok ? await answer.text() : "", "text/html");
      return page.querySelector(isTimeOver ? "#state .eyebrow .state:not(.glass)" : "#last")?.textContent.trim() || GONE;
    } catch {
      return GONE;
    }
  };
  const fatesIn = async (fresh) => {
    const isHeldRow = (row) => row.contains(document.activeElement) || heldIn(row, fresh).length > 0;
    const gone = rowsOf(document).filter((row) => !rowIn(fresh, row.dataset.row) && !row.matches("[data-over]")
      && !mayHaveMovedOn(row, fresh));
    gone.sort((one, other) => isHeldRow(other) - isHeldRow(one));
    const fates = gone.slice(0, MOST_NAMED).map(async (row) => [row.dataset.row, await fateOf(row)]);
    return new Map([...await Promise.all(fates), ...gone.slice(MOST_NAMED).map((row) => [row.dataset.row, GONE])]);
  };

  // What remains of a row whose request is over, while somebody is in the midst of it.
  const overRow = (row, fate) => {
    const rest = row.cloneNode(false), first = row.firstElementChild.cloneNode(false);
    const said = document.createElement("p"), way = document.createElement("a");
    said.className = "alert";
    way.href = `/requests/${row.dataset.row}`;
    way.textContent = "See the request";
    said.append(`${fate}. `, way);
    first.append(row.querySelector("h2").cloneNode(true), said);
    rest.dataset.over = "";
    rest.append(first);
    return rest;
  };

  // Where something of a part belongs in what the part is to become; what lies around it is made where it is missing.
  const putAt = (parent, one, like) => {
    const place = [...one.parentElement.children].indexOf(one);
    return parent.insertBefore(like, parent.children[place] ?? null);
  };
  const placeOf = (one, part, next) => {
    if (one === part) {
      return next;
    }
    const same = one.id && next.querySelector(`#${CSS.escape(one.id)}`);
    if (same) {
      return same;
    }
    const above = placeOf(one.parentElement, part, next);
    const like = one.id ? null : [...above.children].find(
      (other) => !other.id && other.tagName === one.tagName && other.className === one.className);
    if (like) {
      return like;
    }
    const copy = putAt(above, one, one.cloneNode(false));
    copy.append(...[...one.children].filter((child) => child.matches("summary")).map((child) => child.cloneNode(true)));
    return copy;
  };
  const holdIn = (part, next, held, fates) => {
    held.forEach((one) => one.setAttribute(HELD, ""));
    for (const row of part.querySelectorAll("[data-row]")) {
      const isHeldRow = row.contains(document.activeElement) || held.some((one) => row.contains(one));
      if (isHeldRow && !rowIn(next, row.dataset.row)) {
        const fate = fates.get(row.dataset.row);
        putAt(placeOf(row.parentElement, part, next), row, fate ? overRow(row, fate) : row.cloneNode(true));
      }
    }
    for (const one of held) {
      const twin = [...next.querySelectorAll(one.tagName)].find((other) => other.isEqualNode(one)
        || (one.matches("form") && keyOf(other) === keyOf(one)));
      if (twin) {
        twin.replaceWith(one.cloneNode(true));
      } else {
        putAt(placeOf(one.parentElement, part, next), one, one.cloneNode(true));
      }
    }
  };

  // Parts in which something was held are looked at again even where they came as before: it may have been let go of.
  const holding = new Set();
  const replaceParts = (fresh, fates) => {
    const changed = [];
    for (const part of liveParts(document)) {
      const now = fresh.getElementById(part.id) ?? part.cloneNode(false);
      const before = came.get(part.id), isSame = now.outerHTML === before.outerHTML;
      if (isSame && !holding.has(part.id)) {
        continue;
      }
      const held = heldIn(part, fresh);
      if (held.length && !canHold) {
        changed.push(part.id);
        continue;
      }
      const next = document.importNode(now, true);
      next.hidden &&= !held.length;
      holdIn(part, next, held, fates);
      morph(part, next);
      document.querySelectorAll(`[${HELD}]`).forEach((one) => one.removeAttribute(HELD));
      const isHolding = held.length || document.getElementById(part.id).querySelector("[data-over]");
      holding[isHolding ? "add" : "delete"](part.id);
      came.set(part.id, now);
      if (!isSame && (saying(now) !== saying(before) || part.id === "last")) {
        changed.push(part.id);
      }
    }
    return changed;
  };

  // Forms stay as somebody has filled them in: they get the version that the page shows now, or can no longer be sent.
  const settleForms = (fresh) => {
    const theirs = new Map([...fresh.forms].map((form) => [keyOf(form), form]));
    const ours = [...document.forms].filter(
      (form) => form.elements.namedItem("version") || form.closest("[data-live]"));
    for (const form of ours) {
      const twin = theirs.get(keyOf(form)), offered = twin && new Set(buttonsOf(twin).map(goesTo));
      const row = form.closest("[data-row]:not([data-over])"), isElsewhere = row && mayHaveMovedOn(row, fresh);
      const version = twin?.elements.namedItem("version");
      if (version) {
        form.elements.namedItem("version").value = version.value;
      }
      for (const button of buttonsOf(form)) {
        button.disabled = !offered?.has(goesTo(button)) && !isElsewhere;
      }
    }
    const known = new Set(ours.map(keyOf));
    return [...theirs.values()].some((form) => form.elements.namedItem("version") && !known.has(keyOf(form)));
  };

  // Say of a list what came and what has gone, by name where that is short.
  const sayRows = (before, fresh, fates) => {
    const shown = new Map(before.map((row) => [row.dataset.row, nameOf(row)]));
    const added = rowsOf(fresh).filter((row) => !shown.has(row.dataset.row)).map(nameOf);
    const hasMoved = before.some((row) => !rowIn(fresh, row.dataset.row) && !fates.has(row.dataset.row)
      && !row.matches("[data-over]"));
    const said = [];
    if (added.length) {
      said.push(added.length > MOST_NAMED ? `${added.length} are new here.` : `New here: ${added.join("; ")}.`);
    }
    if (hasMoved) {
      said.push("What comes after these is on the next page now.");
    }
    said.push(...[...fates].slice(0, MOST_NAMED).map(([id, fate]) => `${shown.get(id)}: ${fate}.`));
    if (fates.size > MOST_NAMED) {
      said.push(`${fates.size - MOST_NAMED} more are no longer here.`);
    }
    return said.join(" ");
  };

  // What may be decided has changed under somebody's finger: for a moment nothing of it can be pressed.
  const answer = () => document.getElementById("answer");
  const choices = () => [...answer()?.querySelectorAll("form") ?? []].flatMap(buttonsOf).map(goesTo).join();
  const pause = (hadFocus) => {
    const here = answer(), at = document.activeElement;
    if (here.contains(at) && at.matches(FIELDS)) {
      return;
    }
    here.inert = true;
    setTimeout(() => {
      answer().inert = false;
    }, PAUSE);
    if (hadFocus) {
      const title = document.querySelector("h1");
      title.tabIndex = -1;
      title.focus();
    }
  };

  const show = (fresh, fates) => {
    since = fresh.body.dataset.since ?? since;
    const rows = rowsOf(document), words = sayRows(rows, fresh, fates);
    const before = choices(), hadFocus = answer()?.contains(document.activeElement);
    const changed = replaceParts(fresh, fates);
    const isMore = settleForms(fresh);
    tick();
    if (choices() !== before) {
      pause(hadFocus);
    }
    const last = changed.includes("last") ? document.getElementById("last").textContent.trim() : "";
    if (last) {
      say(`${last}.`, isMore && "Load the page again to go on.", again);
    } else if (changed.length === 1 && changed[0] === "presence") {
      say([...document.querySelectorAll("#presence p:not([hidden])")].map((one) => one.textContent).join(" "));
    } else if (changed.length && words && !isMore) {
      say(words, fates.size === 1 && "See the request", `/requests/${[...fates.keys()][0]}`);
    } else if (changed.length) {
      say("This page was updated.", isMore && "Reload it to continue.", again);
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
        end("No longer open to you", "This page is no longer open to you.", "Go to your first page", "/");
      } else if (answer.ok) {
        const fresh = withoutClock(new DOMParser().parseFromString(await answer.text(), "text/html"));
        show(fresh, await fatesIn(fresh));
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
