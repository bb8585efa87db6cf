// The page: who is signed in, where they are, and the views.

import { whoAmI, signIn, signOut } from "./api.js";
import { html, render, useEffect, useRef, useState, Trouble, Waiting } from "./ui.js";
import { Markets, MarketHead } from "./markets.js";
import { Feeder } from "./feeder.js";
import { Bids } from "./bids.js";
import { Prices } from "./prices.js";
import { Audit } from "./audit.js";

const VIEWS = { feeder: "Feeder", bids: "Bids and awards", prices: "Prices" };
const THEMES = ["auto", "light", "dark"];

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray percent sign
  }
};

function useRoute() {
  const read = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
  const [route, setRoute] = useState(read());
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

/** What the browser keeps between visits; some keep nothing, and say so by an exception. */
const kept = {
  get: (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set: (name, value) => {
    try {
      localStorage.setItem(name, value);
    } catch {
      // then it is for this visit
    }
  },
};

function useTheme() {
  const [theme, setTheme] = useState(THEMES.find((one) => one === kept.get("theme")) ?? "auto");
  useEffect(() => {
    kept.set("theme", theme);
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    dispatchEvent(new Event("themechange"));
  }, [theme]);
  return [theme, () => setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])];
}

function SignIn({ done }) {
  const [key, setKey] = useState("");
  const [error, setError] = useState(null);
  const go = async (event) => {
    event.preventDefault();
    try {
      done(await signIn(key.trim()));
      setKey("");
    } catch (refused) {
      setError(refused);
    }
  };
  return html`<form class="signin" onSubmit=${go}>
    <label>API key<input type="password" name="key" autocomplete="off" required value=${key} onInput=${(e) => setKey(e.target.value)} /></label>
    <button class="primary" type="submit">Sign in</button>
    <${Trouble} error=${error} />
  </form>`;
}

function App() {
  const route = useRoute();
  const [theme, nextTheme] = useTheme();
  const [who, setWho] = useState(null);
  const [error, setError] = useState(null);
  const content = useRef(null);
  const hasCome = useRef(false);
  const [ended, setEnded] = useState(false);
  const seat = (found) => {
    setWho(found);
    setEnded(false);
    setError(null);
  };
  const [place, market, view = "feeder"] = route;
  useEffect(() => {
    const ask = () => whoAmI().then(seat, setError);
    const unseated = () => ask().then(() => setEnded(true));
    ask();
    addEventListener("unseated", unseated);
    return () => removeEventListener("unseated", unseated);
  }, []);
  useEffect(() => {
    const shown = place === "audit" ? "Audit and health" : place === "market" ? (VIEWS[view] ?? "Market") : "Markets";
    document.title = `${shown} – dlmp`;
    if (hasCome.current) content.current?.focus({ preventScroll: true });
    hasCome.current = true;
  }, [place, market, view]);
  if (!who) return error ? html`<main><${Trouble} error=${error} /></main>` : html`<${Waiting} />`;
  const leave = async () => {
    seat(await signOut());
    location.hash = "#/";
  };
  return html`<a class="skip" href="#content" onClick=${(e) => {
      e.preventDefault();
      document.getElementById("content").focus();
    }}>To the content</a>
    <header>
      <a class="brand" href="#/">dlmp</a>
      <nav aria-label="Main">
        <a href="#/" aria-current=${!place || place === "markets" ? "page" : null}>Markets</a>
        ${who.scopes.includes("audit:read")
          ? html`<a href="#/audit" aria-current=${place === "audit" ? "page" : null}>Audit and health</a>`
          : null}
        <a href="docs">API</a>
      </nav>
      <div class="who">
        <button type="button" onClick=${nextTheme} aria-label=${`Colours: ${theme}`}>${{ auto: "◐", light: "☀", dark: "☾" }[theme]}</button>
        ${who.role === "public" ? null : html`<span title=${who.key_id}>${who.participant ?? who.role}</span><button type="button" onClick=${leave}>Sign out</button>`}
      </div>
    </header>
    <main id="content" tabindex="-1" ref=${content}>
      <${Trouble} error=${error} />
      ${ended && who.role === "public" ? html`<p role="status">The session has ended: its key is not known any more, or the browser did not keep it.</p>` : null}
      ${who.role === "public" ? html`<${SignIn} done=${seat} />` : null}
      ${place === "audit"
        ? html`<${Audit} who=${who} />`
        : place === "market" && market
          ? html`<${MarketHead} key=${market} id=${market} who=${who} view=${view} views=${shownTo(who)}>
              ${(found) =>
                view === "bids"
                  ? html`<${Bids} market=${found.market} again=${found.again} who=${who} />`
                  : view === "prices"
                    ? html`<${Prices} market=${found.market} who=${who} />`
                    : html`<${Feeder} market=${found.market} who=${who} />`}
            <//>`
          : html`<${Markets} who=${who} />`}
    </main>`;
}

const shownTo = (who) =>
  Object.fromEntries(Object.entries(VIEWS).filter(([name]) => name !== "bids" || who.scopes.includes("bids:read")));

const app = document.getElementById("app");
app.textContent = "";
render(html`<${App} />`, app);
