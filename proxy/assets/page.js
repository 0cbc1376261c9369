// The few behaviours that pages add when scripts run; each page works without them.
"use strict";
