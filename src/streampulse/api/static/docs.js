// Draws the API's description. Nothing is asked of any other host.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#documentation", deepLinking: true, validatorUrl: null });
