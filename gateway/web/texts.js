// What the page says, in the languages that it knows. Messages of the manager come from it and are
// shown as they are.

const TEXTS = {
  en: {
    title: "Your desktop",
    user: "User name",
    password: "Password",
    logIn: "Log in",
    choose: "Choose a desktop",
    back: "Back",
    cancel: "Cancel",
    tryAgain: "Try again",
    asking: "Logging in …",
    pending: "Your desktop is being started. This can take a few minutes.",
    connecting: "Connecting to your desktop …",
    tools: "Tools",
    desktop: "Desktop. Shift+F12 leaves it.",
    fullScreen: "Full screen",
    ctrlAltDel: "Ctrl+Alt+Del",
    openInViewer: "Open in Virt-Viewer",
    disconnect: "Disconnect",
    keys: "Shift+F11: full screen, Shift+F12: this bar",
    unreachable: "The server cannot be reached. Please try again later.",
    unknownAnswer: "The server gave an answer that this page does not know.",
    tookTooLong: "The desktop was not ready in time. Please try again.",
    noDesktops: "There is no desktop for you. Please contact your administrator.",
    noClient: "The desktop cannot be shown in this browser: a part of the page is missing.",
    wrongPassword: "The desktop did not accept its password. Please log in again.",
    refused: "The desktop could not be opened. Please log in again.",
    lost: "The connection to the desktop was lost.",
    hostEnded: "The desktop ended the connection, or was opened somewhere else.",
    hostLost: "The desktop cannot be reached any more.",
    gatewayEnded: "The session was ended by an administrator, or the server is being restarted.",
    disconnected: "You are disconnected from your desktop.",
  },
  de: {
    title: "Ihr Desktop",
    user: "Benutzername",
    password: "Passwort",
    logIn: "Anmelden",
    choose: "Desktop auswählen",
    back: "Zurück",
    cancel: "Abbrechen",
    tryAgain: "Erneut versuchen",
    asking: "Anmeldung läuft …",
    pending: "Ihr Desktop wird gestartet. Das kann einige Minuten dauern.",
    connecting: "Verbindung zum Desktop wird hergestellt …",
    tools: "Werkzeuge",
    desktop: "Desktop. Umschalt+F12 verlässt ihn.",
    fullScreen: "Vollbild",
    ctrlAltDel: "Strg+Alt+Entf",
    openInViewer: "In Virt-Viewer öffnen",
    disconnect: "Trennen",
    keys: "Umschalt+F11: Vollbild, Umschalt+F12: diese Leiste",
    unreachable: "Der Server ist nicht erreichbar. Bitte versuchen Sie es später erneut.",
    unknownAnswer: "Der Server hat eine Antwort gegeben, die diese Seite nicht kennt.",
    tookTooLong: "Der Desktop war nicht rechtzeitig bereit. Bitte versuchen Sie es erneut.",
    noDesktops: "Für Sie gibt es keinen Desktop. Bitte wenden Sie sich an Ihre Administration.",
    noClient: "Der Desktop kann in diesem Browser nicht angezeigt werden: Ein Teil der Seite fehlt.",
    wrongPassword: "Der Desktop hat sein Passwort nicht angenommen. Bitte melden Sie sich erneut an.",
    refused: "Der Desktop konnte nicht geöffnet werden. Bitte melden Sie sich erneut an.",
    lost: "Die Verbindung zum Desktop ist abgebrochen.",
    hostEnded: "Der Desktop hat die Verbindung beendet oder wurde anderswo geöffnet.",
    hostLost: "Der Desktop ist nicht mehr erreichbar.",
    gatewayEnded: "Die Sitzung wurde von der Administration beendet, oder der Server wird neu gestartet.",
    disconnected: "Die Verbindung zu Ihrem Desktop ist getrennt.",
  },
  es: {
    title: "Su escritorio",
    user: "Usuario",
    password: "Contraseña",
    logIn: "Iniciar sesión",
    choose: "Elija un escritorio",
    back: "Volver",
    cancel: "Cancelar",
    tryAgain: "Reintentar",
    asking: "Iniciando sesión …",
    pending: "Su escritorio se está iniciando. Puede tardar unos minutos.",
    connecting: "Conectando con su escritorio …",
    tools: "Herramientas",
    desktop: "Escritorio. Mayús+F12 sale de él.",
    fullScreen: "Pantalla completa",
    ctrlAltDel: "Ctrl+Alt+Supr",
    openInViewer: "Abrir en Virt-Viewer",
    disconnect: "Desconectar",
    keys: "Mayús+F11: pantalla completa, Mayús+F12: esta barra",
    unreachable: "No se puede acceder al servidor. Inténtelo de nuevo más tarde.",
    unknownAnswer: "El servidor dio una respuesta que esta página no conoce.",
    tookTooLong: "El escritorio no estuvo listo a tiempo. Inténtelo de nuevo.",
    noDesktops: "No hay ningún escritorio para usted. Contacte con su administrador.",
    noClient: "No se puede mostrar el escritorio en este navegador: falta una parte de la página.",
    wrongPassword: "El escritorio no aceptó su contraseña. Inicie sesión de nuevo.",
    refused: "No se pudo abrir el escritorio. Inicie sesión de nuevo.",
    lost: "Se perdió la conexión con el escritorio.",
    hostEnded: "El escritorio terminó la conexión o se abrió en otro lugar.",
    hostLost: "Ya no se puede acceder al escritorio.",
    gatewayEnded: "Un administrador terminó la sesión, o el servidor se está reiniciando.",
    disconnected: "Se ha desconectado de su escritorio.",
  },
  fr: {
    title: "Votre bureau",
    user: "Nom d’utilisateur",
    password: "Mot de passe",
    logIn: "Se connecter",
    choose: "Choisissez un bureau",
    back: "Retour",
    cancel: "Annuler",
    tryAgain: "Réessayer",
    asking: "Connexion en cours …",
    pending: "Votre bureau est en cours de démarrage. Cela peut prendre quelques minutes.",
    connecting: "Connexion à votre bureau …",
    tools: "Outils",
    desktop: "Bureau. Maj+F12 permet d’en sortir.",
    fullScreen: "Plein écran",
    ctrlAltDel: "Ctrl+Alt+Suppr",
    openInViewer: "Ouvrir dans Virt-Viewer",
    disconnect: "Se déconnecter",
    keys: "Maj+F11 : plein écran, Maj+F12 : cette barre",
    unreachable: "Le serveur est injoignable. Veuillez réessayer plus tard.",
    unknownAnswer: "Le serveur a donné une réponse que cette page ne connaît pas.",
    tookTooLong: "Le bureau n’a pas été prêt à temps. Veuillez réessayer.",
    noDesktops: "Aucun bureau ne vous est attribué. Veuillez contacter votre administrateur.",
    noClient: "Le bureau ne peut pas être affiché dans ce navigateur : une partie de la page manque.",
    wrongPassword: "Le bureau n’a pas accepté son mot de passe. Veuillez vous reconnecter.",
    refused: "Le bureau n’a pas pu être ouvert. Veuillez vous reconnecter.",
    lost: "La connexion au bureau a été perdue.",
    hostEnded: "Le bureau a mis fin à la connexion, ou a été ouvert ailleurs.",
    hostLost: "Le bureau n’est plus joignable.",
    gatewayEnded: "La session a été terminée par un administrateur, ou le serveur redémarre.",
    disconnected: "Vous êtes déconnecté de votre bureau.",
  },
};

/** The first language of the browser that the page knows, such as "de" for "de-AT"; else "en". */
export const language =
  navigator.languages
    .map((tag) => tag.toLowerCase().split("-")[0])
    .find((known) => Object.hasOwn(TEXTS, known)) ?? "en";

/** The texts in that language, by name. */
export const texts = TEXTS[language];

/** Puts the texts where the elements of the page name them, and the language on the page. */
export function translate() {
  document.documentElement.lang = language;
  document.title = texts.title;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = texts[element.dataset.text];
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", texts[element.dataset.label]);
  }
}
