import { SignInPage } from '@backstage/core-components';
import { createApp } from '@backstage/frontend-defaults';
import { createFrontendModule } from '@backstage/frontend-plugin-api';
import { SignInPageBlueprint } from '@backstage/plugin-app-react';
import catalog from '@backstage/plugin-catalog/alpha';
import kubernetes from '@backstage/plugin-kubernetes/alpha';
import paletteSync from 'backstage-plugin-kubernetes-module-palette-sync/alpha';
import ReactDOM from 'react-dom/client';
import '@backstage/ui/css/styles.css';

const guest = createFrontendModule({
  pluginId: 'app',
  extensions: [
    SignInPageBlueprint.make({
      params: { loader: async () => props => <SignInPage {...props} auto providers={['guest']} /> },
    }),
  ],
});

const app = createApp({ features: [catalog, kubernetes, paletteSync, guest] });

ReactDOM.createRoot(document.getElementById('root')!).render(app.createRoot());
